"""The GraphQL operations that are asked of a W&B server beside those of wandb itself. Every field in them is one that
wandb 0.31 asks for too."""

from __future__ import annotations

from typing import Final

GENERATIONS: Final = 8
"""A run of W&B that was deleted leaves its id unusable, so a run that is written anew has the next id of these."""

_RUN: Final = """
fragment Run on Run {
    id name displayName group jobType notes tags state config summaryMetrics createdAt sweepName commit
    historyLineCount eventsLineCount fileCount user { username }
}
"""

FIND: Final = (
    "query ShardmigFind($entity: String!, $cursor: String, $perPage: Int!, "
    + ", ".join(f"$name{number}: String!" for number in range(GENERATIONS))
    + """) {
    models(entityName: $entity, first: $perPage, after: $cursor) {
        edges { node { name """
    + " ".join(f"run{number}: run(name: $name{number}) {{ ...Run }}" for number in range(GENERATIONS))
    + """ } cursor }
        pageInfo { hasNextPage endCursor }
    }
}"""
    + _RUN
)

RUN: Final = (
    """query ShardmigRun($entity: String!, $project: String!, $name: String!) {
    project(name: $project, entityName: $entity) { run(name: $name) { ...Run } }
}"""
    + _RUN
)

RUNS: Final = (
    """query ShardmigRuns($entity: String!, $project: String!, $cursor: String, $perPage: Int!) {
    project(name: $project, entityName: $entity) {
        runs(first: $perPage, after: $cursor, order: "+created_at") {
            edges { node { ...Run } cursor }
            pageInfo { hasNextPage endCursor }
        }
    }
}"""
    + _RUN
)

PROJECTS: Final = """query ShardmigProjects($entity: String!, $cursor: String, $perPage: Int!) {
    models(entityName: $entity, first: $perPage, after: $cursor) {
        edges { node { name } cursor }
        pageInfo { hasNextPage endCursor }
    }
}"""

FILES: Final = """query ShardmigFiles(
    $entity: String!, $project: String!, $name: String!, $fileCursor: String, $fileLimit: Int!
) {
    project(name: $project, entityName: $entity) {
        run(name: $name) {
            files(first: $fileLimit, after: $fileCursor) {
                edges { node { name url(upload: false) sizeBytes md5 } cursor }
                pageInfo { hasNextPage endCursor }
            }
        }
    }
}"""

EVENTS: Final = """query ShardmigEvents($entity: String!, $project: String!, $name: String!, $samples: Int!) {
    project(name: $project, entityName: $entity) { run(name: $name) { events(samples: $samples) } }
}"""

ARTIFACTS: Final = """query ShardmigArtifacts(
    $entity: String!, $project: String!, $run: String!, $cursor: String, $perPage: Int!
) {
    project(name: $project, entityName: $entity) {
        run(name: $run) {
            artifacts: outputArtifacts(first: $perPage, after: $cursor) {
                edges { node { versionIndex description metadata tags { name } aliases { alias } artifactType { name } artifactSequence { name } } }
                pageInfo { hasNextPage endCursor }
            }
        }
    }
}"""

USED: Final = """query ShardmigUsed(
    $entity: String!, $project: String!, $run: String!, $cursor: String, $perPage: Int!
) {
    project(name: $project, entityName: $entity) {
        run(name: $run) {
            artifacts: inputArtifacts(first: $perPage, after: $cursor) {
                edges { node { versionIndex artifactSequence { name project { name entity { name } } } } }
                pageInfo { hasNextPage endCursor }
            }
        }
    }
}"""

ARTIFACT_FILES: Final = """query ShardmigArtifactFiles(
    $entity: String!, $project: String!, $collection: String!, $alias: String!, $cursor: String, $perPage: Int!
) {
    project(name: $project, entityName: $entity) {
        artifactCollection(name: $collection) {
            artifactMembership(aliasName: $alias) {
                files(first: $perPage, after: $cursor) {
                    edges { node { name: displayName directUrl sizeBytes } }
                    pageInfo { hasNextPage endCursor }
                }
            }
        }
    }
}"""

UPSERT: Final = """mutation ShardmigUpsert($id: String, $name: String, $project: String, $entity: String, $config: JSONString) {
    upsertBucket(input: { id: $id, name: $name, modelName: $project, entityName: $entity, config: $config }) {
        bucket { id name project { name entity { name } } }
        inserted
    }
}"""

DELETE: Final = """mutation DeleteRun($id: ID!) {
    deleteRun(input: { id: $id }) { clientMutationId }
}"""

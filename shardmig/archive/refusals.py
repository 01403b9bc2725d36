"""What an object store refuses, in the words of `shardmig.errors`: which object, why, and what to do about it."""

from __future__ import annotations

import re
from typing import Final

from shardmig.errors import AuthFailed, Fatal, HostilePath, QuotaExceeded, ShardmigError, Unavailable, UsageError

_CREDENTIALS: Final = (
    "set the store's own variables: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE,"
    " GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
)
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist")
_NOT_ALLOWED: Final = re.compile(
    r"status code: 40[13]\b|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken"
    r"|169\.254\.169\.254|metadata\.google|[Cc]redential|Account must be specified"
)
_FULL: Final = re.compile(r"status code: 507\b|QuotaExceeded|StorageFull|XMinioStorageFull")
_ELSEWHERE: Final = re.compile(r"PermanentRedirect|AuthorizationHeaderMalformed|status code: 301\b|LocationConstraint")
_LOST_UPLOAD: Final = "NoSuchUpload"
_CLIENT: Final = re.compile(r"status code: 4(?!08|09|25|29)\d\d\b")


def refusal(url: str, error: Exception) -> ShardmigError | OSError:
    """The error to raise for what obstore raised about `url`.

    What is not there is FileNotFoundError and what is there already FileExistsError, as on disk.
    """
    from obstore.exceptions import (
        AlreadyExistsError,
        InvalidPathError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    text = str(error)
    said = " ".join(text.split("\n\nDebug source", 1)[0].split())
    if _NO_BUCKET.search(text):
        bucket = "/".join(url.split("/", 3)[:3])
        return UsageError(
            f"there is no bucket {bucket}", hint="make it, or check the name and the endpoint (AWS_ENDPOINT_URL)"
        )
    if _LOST_UPLOAD in text:  # it was completed, but the answer was lost: to write again is harmless
        return Unavailable(f"{url}: the end of an upload was not confirmed: {said}")
    if isinstance(error, FileNotFoundError):
        return error
    if isinstance(error, AlreadyExistsError | PreconditionError):
        return FileExistsError(f"{url} is there already, or not what it was")
    if isinstance(error, InvalidPathError | ValueError):
        return HostilePath(f"{url!r} is, or holds, a name that no object may have: {said}")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _NOT_ALLOWED.search(text):
        return AuthFailed(f"no access to {url}: {said}", hint=_CREDENTIALS)
    if _FULL.search(text):
        return QuotaExceeded(f"no space left in the store of {url}: {said}")
    if _ELSEWHERE.search(text):
        return UsageError(f"{url} is in another region: {said}", hint="set AWS_REGION to the bucket's region")
    if _CLIENT.search(text):
        return Fatal(f"the store refused {url}: {said}")
    return Unavailable(f"{url} cannot be reached: {said}", hint="is AWS_ENDPOINT_URL right, and the store up?")

"""`python -m shardmig`."""

from shardmig.cli import main

if __name__ == "__main__":
    main()

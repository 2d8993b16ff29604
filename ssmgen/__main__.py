"""`python -m ssmgen`."""

from .cli import main

if __name__ == "__main__":
    main()

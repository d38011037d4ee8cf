"""``python -m mdpsim``."""

from mdpsim.cli import main

if __name__ == "__main__":
    main()

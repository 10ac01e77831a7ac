"""``python -m hubrank``."""

from hubrank.cli import main

if __name__ == "__main__":
    main()

"""python -m hublatent: the same as the hublatent command."""

from hublatent.cli import main

if __name__ == "__main__":
    main()

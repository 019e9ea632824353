"""`python -m rewardsds.toybox.train --data DIR --out DIR [--stage NAME] [--preset cpu|gpu] …`"""

from __future__ import annotations

import sys

import tyro

from rewardsds.toybox.train import TrainSettings, train


def main() -> None:
    settings = tyro.cli(TrainSettings)
    try:
        train(settings)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

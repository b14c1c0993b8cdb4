#!/usr/bin/env python3
"""The physical limits that every share in our tables refers to: the fastest plain matrix product of each precision, and how
many bytes a second a copy moves; with the versions and the card.

  python scripts/bench_device.py [--device cuda] [--json]
"""

import argparse
import json

from benching.device import bench_device, environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    result = environment(args.device) | bench_device(args.device)
    print(json.dumps(result) if args.json else "\n".join(f"{name:28} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()

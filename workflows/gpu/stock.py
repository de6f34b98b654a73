"""Run a bundle's chain in stock MONAI over a folder of scans; print how long its last scan took.

python stock.py BUNDLE SCANS
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser


def main() -> None:
    bundle, scans = map(Path, sys.argv[1:])
    config = ConfigParser()
    config.read_config(bundle / "configs" / "inference.json")
    config["bundle_root"] = str(bundle)
    config["dataset_dir"] = str(scans)
    config["output_dir"] = tempfile.mkdtemp()
    evaluator = config.get_parsed_content("evaluator")
    began = time.perf_counter()
    evaluator.run()
    device = "cpu"
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        device = torch.cuda.get_device_name()
    took = time.perf_counter() - began
    print(f"{took:.2f} s on {device}, with reading and writing")


if __name__ == "__main__":
    main()

"""TotalSegmentator: its tasks as data, and where their weights lie."""

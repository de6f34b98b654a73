"""What several tests share: made-up scans and bundles, servers, a browser."""

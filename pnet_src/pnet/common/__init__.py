"""What every room needs: errors, paths, files, seeds, provenance, outside programs."""

# The first notebook from a folder of its own; $1 is the source.
cp "$1/notebooks/01_quickstart.ipynb" .
jupyter execute 01_quickstart.ipynb

"""The files of an emitted package that are neither operator nor module."""

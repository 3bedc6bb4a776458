"""What pyproject.toml cannot say: the sweep files, which lie beside the package, are in a wheel part of it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["s3ray*"]), "s3ray.sweeps"],
    package_dir={"s3ray.sweeps": "sweeps"},
)

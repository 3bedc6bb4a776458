"""What pyproject.toml cannot say: sweep files and prices, which lie beside the package, are in a wheel part of it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["s3ray*"]), "s3ray.sweeps", "s3ray.cluster"],
    package_dir={"s3ray.sweeps": "sweeps", "s3ray.cluster": "cluster"},
)

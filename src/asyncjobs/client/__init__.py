"""Submitting jobs and following them."""

from asyncjobs.client.client import JobClient, Page
from asyncjobs.client.handle import JobHandle

__all__ = ["JobClient", "JobHandle", "Page"]

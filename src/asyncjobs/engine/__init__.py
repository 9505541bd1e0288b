"""When jobs run: an engine, its workers, and who is alive."""

from asyncjobs.engine.engine import Health, JobEngine

__all__ = ["Health", "JobEngine"]

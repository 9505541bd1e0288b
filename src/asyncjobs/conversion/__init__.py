"""Values of annotated types, to JSON values and back: `converters(annotation, function)`.

In a job's process the files of this folder are loaded by path, without the package and so without
this one.
"""

from asyncjobs.conversion.compiler import converters, lenient_annotations

__all__ = ["converters", "lenient_annotations"]

"""Virtual environments for jobs that ask for packages or an interpreter of their own, built by uv."""

from asyncjobs.errors import EnvironmentFailed as EnvironmentFailed
from asyncjobs.execution.environments.places import Environment as Environment
from asyncjobs.execution.environments.shared import BuildFinished as BuildFinished
from asyncjobs.execution.environments.shared import BuildStarted as BuildStarted
from asyncjobs.execution.environments.shared import Environments as Environments
from asyncjobs.execution.environments.shared import Wanted as Wanted
from asyncjobs.execution.environments.shared import default_folder as default_folder

"""One configuration from defaults, a profile, a YAML file, the environment and flags; flags are strongest."""

from holdwater.config.gather import Config, gather
from holdwater.config.profile import Profile, choose_profile, load_profile

__all__ = ["Config", "Profile", "choose_profile", "gather", "load_profile"]

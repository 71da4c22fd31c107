"""The page process: shows what the watcher publishes, over HTTP. It only reads; no browser can hold up anything."""

from .process import run as run

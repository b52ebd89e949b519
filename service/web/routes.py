"""All endpoints, in the order in which the API document shows them."""

from __future__ import annotations

from service.web.catalogue_routes import catalogue
from service.web.event_routes import read, write
from service.web.operation_routes import admin, look, model, open_to_all
from service.web.recommend_routes import ask

ROUTERS = (ask, write, read, look, catalogue, model, admin, open_to_all)

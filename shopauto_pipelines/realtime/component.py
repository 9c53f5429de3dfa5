"""The ``LandingPage`` component: checks a declared page when the playbook is loaded. The collector serves it."""

import dagster as dg

from shopauto_pipelines.platform.dagster.declared import Declared, scaffolds
from shopauto_pipelines.realtime import landing_pages

_EXAMPLE = {
    "name": "guide",
    "description": "The guide, for an e-mail address.",
    "languages": {
        "en": {
            "title": "How to choose well",
            "intro": "Our guide in your inbox, in a minute.",
            "email": "Your e-mail",
            "consent": "Send me the guide and news by e-mail. I can stop it at any time.",
            "button": "Send it to me",
            "thanks": "Thank you. It is on its way.",
        }
    },
}


@dg.scaffold_with(scaffolds(_EXAMPLE))
class LandingPage(Declared):
    """A page with a form, served by the collector at `/pages/<name>`; who fills it in becomes a lead, with its UTM."""

    model, read, room = landing_pages.LandingPage, landing_pages.load_landing_pages, "realtime"

"""Half sentences that help with a wrong name."""

import pytest

from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.sources.expressions import plain


@pytest.mark.parametrize(
    ("name", "valid", "more", "told"),
    [
        ("ORDRES", ["orders", "Orders_90d"], {}, "did you mean `orders`?"),
        ("orders", ["Orders"], {"quote": ""}, "did you mean Orders?"),
        ("invoice_date", ["Country", "Invoice Date"], {"alike": plain}, "did you mean `Invoice Date`?"),
        ("zzz", ["b", "a", "c"], {"most": 2}, "there are a, b and 1 more"),
        ("zzz", [], {}, "there are none"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_or_with_what_there_is(name, valid, more, told):
    assert nearest(name, valid, **more) == told

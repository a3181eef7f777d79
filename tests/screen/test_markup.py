import xml.etree.ElementTree as ET

from autoinit.screen.columns import Column
from autoinit.screen.markup import code, facts, folded, page, table


def test_a_page_is_well_formed_and_escapes_what_it_shows():
    html = page(
        "loss < 2 & falling",
        facts([("lr", "0.05 <searched>")]),
        "",
        code("a < b"),
        folded("trials", table([Column("recipe"), Column("loss", ">")], [("<script>", "0.1")])),
    )
    root = ET.fromstring(html)
    said = "".join(root.itertext())
    assert "loss < 2 & falling" in said
    assert "<script>" in said
    assert root.find(".//script") is None
    assert root.find(".//details").get("open") is None
    assert root.find(".//summary").text == "trials"
    cells = root.findall(".//td")
    assert "right" in cells[1].get("style")
    assert "left" in cells[0].get("style")


def test_long_tables_are_cut_and_say_so():
    html = table([Column("number")], [(str(number),) for number in range(1000)])
    root = ET.fromstring(html)
    assert len(root.findall(".//td")) == 200
    assert "800 more" in "".join(root.itertext())


def test_no_facts_are_nothing():
    assert facts([]) == ""
    assert "open" in folded("now", "x", opened=True).split(">")[0]

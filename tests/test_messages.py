from gleam_mm.messages import hint_at, listed, shown


def test_near_names_are_hinted_at():
    known = ('rank', 'scale', 'ranks')
    assert hint_at('rnak', known) == " (did you mean 'rank'?)"
    assert hint_at('rnak', known, 3) == " (did you mean 'rank' or 'ranks'?)"
    assert hint_at('xyz', known) == ''
    assert hint_at('Lora', ('LoRA', 'LoReFT')) == " (did you mean 'LoRA'?)"


def test_long_lists_and_values_are_cut_short():
    assert [listed(range(n), 2) for n in (0, 1, 2, 1002)] == [
        'none',
        '0',
        '0, 1',
        '0, 1 and 1,000 more',
    ]
    assert shown('\x1b[2J\udc80') == r"'\x1b[2J\udc80'"
    assert shown([1, 2, 3], 6) == '[1,...'

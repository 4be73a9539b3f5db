"""DATABASE_URL: what is accepted, what is translated, and that no error shows the password."""

import traceback
import unittest

from app import settings

BASE = "postgresql+asyncpg://mindwelladmin:{password}@db.example:5432/mindwell_app"
PASSWORD = "k4narienVogel"


def load(text: str) -> settings.Settings:
    return settings.load({"DATABASE_URL": text})


class Accepted(unittest.TestCase):
    """What the engine gets, part by part."""

    def test_sslmode_becomes_ssl(self) -> None:
        for mode in settings.SSL_MODES:
            url = load(BASE.format(password=PASSWORD) + f"?sslmode={mode}").database_url
            self.assertEqual(dict(url.query), {"ssl": mode})
            self.assertEqual(url.password, PASSWORD)

    def test_other_parameters_stay(self) -> None:
        url = load(BASE.format(password=PASSWORD) + "?sslmode=require&command_timeout=9").database_url
        self.assertEqual(dict(url.query), {"ssl": "require", "command_timeout": "9"})

    def test_a_url_without_sslmode_is_left_alone(self) -> None:
        for query in ({}, {"ssl": "require"}):
            suffix = "".join(f"?{key}={value}" for key, value in query.items())
            self.assertEqual(dict(load(BASE.format(password=PASSWORD) + suffix).database_url.query), query)

    def test_percent_encoding_is_decoded(self) -> None:
        self.assertEqual(load(BASE.format(password="a%2Fb%25c%40d")).database_url.password, "a/b%c@d")


class Refused(unittest.TestCase):
    """Each error names its reason, and neither it nor what caused it holds the password."""

    def assert_refused(self, text: str, reason: str) -> None:
        with self.assertRaises(settings.SettingsError) as caught:
            load(text)
        shown = "".join(traceback.format_exception(caught.exception))
        self.assertIn(reason, shown)
        self.assertNotIn(PASSWORD, shown)

    def test_nothing_set(self) -> None:
        self.assert_refused("", "is not set")

    def test_an_unescaped_at_sign(self) -> None:
        self.assert_refused(BASE.format(password=f"x@{PASSWORD}"), "percent-encoded")
        self.assert_refused(BASE.format(password=f"x@y:{PASSWORD}"), "percent-encoded")

    def test_not_a_url(self) -> None:
        self.assert_refused(f"host=db password={PASSWORD}", "percent-encoded")

    def test_another_driver(self) -> None:
        self.assert_refused(f"postgresql://u:{PASSWORD}@h/d", "must begin with")

    def test_no_database(self) -> None:
        self.assert_refused(f"postgresql+asyncpg://u:{PASSWORD}@h", "must name")

    def test_sslmode_twice_or_unknown(self) -> None:
        base = BASE.format(password=PASSWORD)
        self.assert_refused(f"{base}?sslmode=require&ssl=require", "keep one")
        self.assert_refused(f"{base}?sslmode=require&sslmode=disable", "must be one of")
        self.assert_refused(f"{base}?sslmode=on", "must be one of")

    def test_the_representation_hides_the_url(self) -> None:
        self.assertNotIn(PASSWORD, repr(load(BASE.format(password=PASSWORD))))


if __name__ == "__main__":
    unittest.main()

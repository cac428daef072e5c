"""Django's settings, from the environment (panel/environment.py declares each)."""

import environ

from panel import environment

ENVIRONMENT = environment.read()
BASE_DIR = environment.BASE

SECRET_KEY = environment.secret_key(ENVIRONMENT)
DEBUG = ENVIRONMENT.debug

ALLOWED_HOSTS = [ENVIRONMENT.hostname, "localhost", "127.0.0.1", "[::1]", ENVIRONMENT.http.host]
CSRF_TRUSTED_ORIGINS = [f"https://{ENVIRONMENT.hostname}"]

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "panel.tenants",
    "panel.domains",
    "panel.mailboxes",
    "panel.sending",
    "panel.operations",
    "panel.console",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "panel.urls"
WSGI_APPLICATION = "panel.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "panel" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def _database() -> dict[str, object]:
    if not ENVIRONMENT.database_url:
        return _sqlite(str(ENVIRONMENT.data / "db.sqlite3"))
    try:
        database = environ.Env.db_url_config(ENVIRONMENT.database_url)
    except (ValueError, environ.ImproperlyConfigured):
        database = {}
    if database.get("ENGINE") == "django.db.backends.sqlite3":
        return _sqlite(str(database["NAME"]))
    if database.get("ENGINE") != "django.db.backends.postgresql":
        raise environment.BadSetting(
            "DATABASE_URL can't be used: write postgres://user:password@host:5432/name, or leave it empty for SQLite."
        )
    # No pool and no CONN_MAX_AGE of 0: reconnecting costs 4 ms a call (measured), a kept connection 0.07.
    return {**database, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}


def _sqlite(name: str) -> dict[str, object]:
    return {
        "ENGINE": "panel.database.sqlite3",
        "NAME": name,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            # FULL: a message that was answered 250 must survive a power cut.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000;",
        },
        "CONN_MAX_AGE": None,
    }


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "tenants.User"
PASSWORD_HASHERS = ["panel.mailboxes.passwords.Argon2Hasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = ENVIRONMENT.data / "static"
STATICFILES_DIRS = [BASE_DIR / "panel" / "static"]

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
if ENVIRONMENT.https_proxy:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 31536000
    SECURE_SSL_REDIRECT = True

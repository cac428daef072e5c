"""Django's settings, from the environment (panel/environment.py declares each)."""

from urllib.parse import urlsplit

import environ
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy, pgettext_lazy

from panel import environment

ENVIRONMENT = environment.read()
BASE_DIR = environment.BASE

SECRET_KEY = environment.secret_key(ENVIRONMENT)
DEBUG = ENVIRONMENT.debug

_URL_HOST = urlsplit(ENVIRONMENT.url).hostname or ""
ALLOWED_HOSTS = [
    ENVIRONMENT.hostname, "localhost", "127.0.0.1", "[::1]", ENVIRONMENT.http.host,
    f"[{_URL_HOST}]" if ":" in _URL_HOST else _URL_HOST,
]
CSRF_TRUSTED_ORIGINS = [f"https://{ENVIRONMENT.hostname}", ENVIRONMENT.url]

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "django.contrib.auth",
    "panel.tenants",
    "panel.domains",
    "panel.mailboxes",
    "panel.sending",
    "panel.operations",
    "panel.console",
    # Its pages are found when the panel's addresses are: no other program needs them, and finding them takes
    # half of a command's start.
    "panel.tenants.site.ProviderAdmin",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "panel.client_address.ClientAddress",
    # Around all that answers: files, errors and what mail clients ask are no pages of Django's views.
    "panel.console.middleware.BrowserPolicies",
    "panel.autoconfig.middleware.Autoconfig",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "panel.tenants.sign_in.sessions.Seen",
    "panel.tenants.sign_in.gate.SecondFactorGate",
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
                "panel.console.frame.look",
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
    # A connection that dropped silently is found out within half a minute, not when TCP gives up.
    patience = {
        "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    options = {**patience, **database.get("OPTIONS", {})}
    return {**database, "OPTIONS": options, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}


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


def _link(title: object, icon: str, view: str) -> dict[str, object]:
    """An entry of the admin's side bar."""
    return {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{view}_changelist")}


def _is_in_queue(path: str) -> bool:
    pages = ("recipient/queue/", "recipient/bulk/", "bulkact/")
    return path.startswith(tuple(f"/admin/sending/{page}" for page in pages))


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "tenants.User"
PASSWORD_HASHERS = ["panel.mailboxes.passwords.Argon2Hasher"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["email", "name"]},
    },
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
    {"NAME": "panel.tenants.sign_in.password_rules.CommonPassword"},
    {"NAME": "panel.tenants.sign_in.password_rules.LeakedPassword"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

LANGUAGE_CODE = "en"
# Each as it calls itself: the menus offer the choice. A browser that asks for another one has English.
LANGUAGES = environment.LANGUAGES
LOCALE_PATHS = [BASE_DIR / "panel" / "locale"]
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
FORMAT_MODULE_PATH = ["panel.formats"]

STATIC_URL = "static/"
# Served from where the packages have them: nothing to collect, nothing to forget.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
# What others made stands in folders that name its version: browsers keep it for good.
WHITENOISE_IMMUTABLE_FILE_TEST = r"^/static/console/vendor/[a-z-]+-[0-9.]+/"
STATICFILES_DIRS = [BASE_DIR / "panel" / "static"]

SESSION_ENGINE = "panel.tenants.sign_in.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_AGE = 31536000
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "panel.console.refusal.csrf_failure"
if ENVIRONMENT.https_proxy:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = True
    # Of this host alone (RFC 6265bis §4.1.3.2): another site below the same domain can't put one in a cookie's place.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
    LANGUAGE_COOKIE_NAME = "__Host-django_language"
    SECURE_HSTS_SECONDS = 31536000
    SECURE_SSL_REDIRECT = True

UNFOLD = {
    "SITE_TITLE": "Posthouse",
    "SITE_HEADER": "Posthouse",
    "SITE_SUBHEADER": ENVIRONMENT.hostname,
    "SITE_URL": None,
    "SITE_ICON": lambda request: static("posthouse/logo.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("posthouse/logo.svg")}],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "panel.operations.overview.overview",
    "STYLES": [lambda request: static("posthouse/colours.css"), lambda request: static("posthouse/admin.css")],
    "SCRIPTS": [lambda request: static("posthouse/copy.js"), lambda request: static("posthouse/reader.js")],
    # The console's accent, #4350b0, and its neighbours.
    "COLORS": {
        "primary": {
            "50": "#f5f6fd", "100": "#eef0fb", "200": "#dde1f7", "300": "#c3caf1", "400": "#a9b4f8", "500": "#7c88e0",
            "600": "#4350b0", "700": "#363f91", "800": "#2d3577", "900": "#262b4d", "950": "#181b33",
        },
    },
    "ACCOUNT": {"navigation": [{"title": gettext_lazy("Your account"), "link": reverse_lazy("account:own")}]},
    "SIDEBAR": {
        "show_search": False,
        "navigation": [
            {"title": gettext_lazy("Customers"), "separator": True, "items": [
                _link(gettext_lazy("Tenants"), "domain", "tenants_tenant"),
                _link(gettext_lazy("Plans"), "sell", "tenants_plan"),
                _link(gettext_lazy("Accounts"), "manage_accounts", "tenants_user"),
                _link(gettext_lazy("Memberships"), "group", "tenants_membership"),
            ]},
            {"title": gettext_lazy("Addresses"), "separator": True, "items": [
                _link(gettext_lazy("Domains"), "language", "domains_domain"),
                _link(gettext_lazy("Domain aliases"), "alt_route", "domains_domainalias"),
                _link(gettext_lazy("Mailboxes"), "inbox", "mailboxes_mailbox"),
                _link(gettext_lazy("Aliases"), "alternate_email", "mailboxes_alias"),
                _link(gettext_lazy("Passwords"), "key", "mailboxes_credential"),
            ]},
            {"title": gettext_lazy("Mail"), "separator": True, "items": [
                _link(gettext_lazy("Messages"), "mail", "sending_message"),
                {
                    "title": gettext_lazy("Queue"), "icon": "outbox", "link": reverse_lazy("admin:sending_queue"),
                    "active": lambda request: _is_in_queue(request.path),
                },
                {
                    **_link(gettext_lazy("Recipients"), "forward_to_inbox", "sending_recipient"),
                    "active": lambda request: "/sending/recipient/" in request.path and not _is_in_queue(request.path),
                },
                _link(gettext_lazy("Sending limits"), "speed", "sending_sendinglimit"),
                _link(gettext_lazy("Routes"), "signpost", "sending_outboundroute"),
            ]},
            {"title": pgettext_lazy("logs", "Records"), "separator": True, "items": [
                _link(gettext_lazy("Logins"), "login", "mailboxes_loginevent"),
                _link(gettext_lazy("Audit log"), "history", "tenants_auditentry"),
            ]},
        ],
    },
}

"""What is a key by its name, by its form, or as an option: it is refused where others could read it."""

import pytest

from research.errors import UserError
from research.sweeps.secrets import refuse_assignments, refuse_secret

NAMES = [
    "HF_TOKEN",
    "APIKEY",
    "API_KEY",
    "api_key",
    "PASSWD",
    "AWS_SECRET_ACCESS_KEY",
    "OPENAI_KEY",
    "GITHUB_PAT",
    "DB_PASS",
    "MYSQL_PWD",
    "PGPASSWORD",
    "HF_TOKENS",
    "SECRETS",
    "AUTHORIZATION",
    "CREDS",
    "SSH_PRIVATE_KEY_PEM",
    "PRIVATE_KEY_B64",
    "API_KEY_2",
    "COOKIE",
    "JWT",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "KEY",
]
PLAIN = [
    "MONKEY",
    "KEYBOARD",
    "TOKENIZERS_PARALLELISM",
    "MAX_TOKENS",
    "MAX_NEW_TOKENS",
    "PWD",
    "OLDPWD",
    "HF_HOME",
    "KEY_PATH",
    "AUTHOR",
    "PASSTHROUGH",
    "NCCL_DEBUG",
    "COMPASS",
    "PATH",
]
VALUES = [
    "https://me:mine@host/x",
    "https://ghp_0123456789abcdef0123456789abcdef0123@host/x",
    "hf_" + "aB3" * 11,
    "sk-proj-0123456789abcdef0123",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-1234-5678-abcd",
    "glpat-0123456789abcdef0123",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefgh",
    "Bearer abcdef",
    "-----BEGIN RSA PRIVATE KEY-----",
]
HARMLESS = [
    "http://proxy:3128",
    "hf_model",
    "sk-learn",
    "0123456789abcdef0123456789abcdef01234567",
    "a=b",
    "ssh://git@host/x",
    "/home/me/.netrc",
    "token",
    "",
]
LINES = [
    "export HF_TOKEN=abc",
    "HF_TOKEN='abc' python x",
    "declare -x API_KEY=abc",
    "env API_KEY=abc python",
    'export "HF_TOKEN=abc"',
    "export A=1 HF_TOKEN=abc",
    "HF_TOKEN+=abc",
    "setenv HF_TOKEN abc",
    "mysql --password=abc",
    "login --token abc",
    "wandb login 0123456789abcdef0123456789abcdef01234567",
    "huggingface-cli login --token hf_" + "aB3" * 11,
    'curl -H "Authorization: Bearer abc" x',
    "git clone https://me:mine@host/x",
    "x --api-key 'abc'",
]
SOURCED = [
    "export HF_TOKEN=$(cat f)",
    "export HF_TOKEN=$X",
    'export HF_TOKEN="$X"',
    "export HF_TOKEN=`cat f`",
    "source ~/.secrets",
    "export HF_TOKEN=",
    "login --token $HF_TOKEN",
    'login --token "$(cat f)"',
    "x --password-file f",
    "x --tokenizer llama",
    "wandb login --relogin",
    "module load cuda/12",
    'curl -H "Authorization: Bearer $X" x',
    "git checkout " + "0a" * 20,
]


@pytest.mark.parametrize(("values", "refused"), [(NAMES, True), (PLAIN, False)], ids=["keys", "plain"])
def test_a_key_is_known_by_its_name(values, refused):
    assert [name for name in values if is_refused(refuse_secret, "--env", name, "abc") != refused] == []


@pytest.mark.parametrize(("values", "refused"), [(VALUES, True), (HARMLESS, False)], ids=["keys", "harmless"])
def test_a_key_is_known_by_its_form(values, refused):
    assert [value for value in values if is_refused(refuse_secret, "--env", "X", value) != refused] == []


@pytest.mark.parametrize(("lines", "refused"), [(LINES, True), (SOURCED, False)], ids=["keys", "sourced"])
def test_a_line_of_setup_may_fetch_a_key_and_not_hold_it(lines, refused):
    assert [line for line in lines if is_refused(refuse_assignments, "--setup", [line]) != refused] == []


def test_the_key_itself_is_not_repeated():
    for call in ((refuse_secret, "--env X", "X", "hf_" + "aB3" * 11), (refuse_assignments, "--setup", ["x --token abcxyz"])):
        with pytest.raises(UserError) as error:
            call[0](*call[1:])
        assert "aB3" not in str(error.value)
        assert "abcxyz" not in str(error.value)


def is_refused(check, *args) -> bool:
    try:
        check(*args)
    except UserError:
        return True
    return False

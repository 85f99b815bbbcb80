"""Models to and from the Hugging Face Hub: `kat-zoo push`, `pull` and `convert`.

A repository holds model.safetensors, a config.json that timm and transformers' timm wrapper read, a card, and what a
training run left: recipe, log, result and figures.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .._text import one_line
from ..models._download import config_damage, weights_damage
from .repository import CONFIG, OWN_FILES, WEIGHTS, lay_out, read_config

DOWNLOADED = Path(".cache", "huggingface", "download")  # where the Hub's client notes the files that it downloads to a folder
# HTTP clients of huggingface_hub's versions; their errors when there is no answer have no base of the Hub's.
CLIENTS = ("httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3")


@dataclass(frozen=True)
class Push:
    """A push that was done, or would be.

    Attributes:
        repo: repository.
        files: names and sizes in bytes of the files of the model.
        commit: the revision that holds them; None after a dry run.
        changed: whether a commit was made.
        url: address of the repository, or of the pull request.
    """

    repo: str
    files: dict[str, int]
    commit: str | None
    changed: bool
    url: str


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    replace: bool = False,
    weights: str = "last",
    message: str = "",
    license: str | None = None,
    token: str | None = None,
) -> Push:
    """Upload a model in one commit; the same content again makes none, and large files already uploaded are not sent again.

    Args:
        run: folder of `kat-zoo train`, or one made by `convert`, `save_model` or `pull`.
        repo: `org/name`; it is made if it does not exist.
        private: make a new repository private.
        revision: branch to commit to; it is made if it does not exist.
        create_pr: open a pull request instead of committing.
        dry_run: lay out the files and stop; asks nothing of the Hub.
        replace: overwrite a repository that holds another architecture, or files of the same names and no config.json.
        weights: "last" for the last weights of a run, or "best" for those of its best evaluation.
        message: message of the commit.
        license: license of the weights, as the Hub calls it (`mit`, `apache-2.0`, ...); the card names none by default.
        token: token of the Hub; by default that of HF_TOKEN or `hf auth login`.

    Returns:
        The push.

    Raises:
        ValueError: bad arguments; the repository is public, private was asked for; it holds another architecture.
        FileNotFoundError: not a run.
        PermissionError: no token, one that is not valid, or one without the right to write.
        ConnectionError: the Hub does not answer.
    """
    run = Path(run)
    _require_repo(repo)
    if weights not in ("last", "best"):
        raise ValueError(f"weights {weights!r}: expected 'last' or 'best'")
    if create_pr and revision not in (None, "main"):
        raise ValueError(f"revision {revision!r}: a pull request is made against main")
    if not run.is_dir():
        raise FileNotFoundError(f"no such folder: {run}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(run, folder, repo, weights, license)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        if dry_run:
            return Push(repo, files, None, False, f"https://huggingface.co/{repo}")
        api = HfApi(token=_token(token), library_name="kat_zoo")
        with _explained(repo):
            head = _prepare(api, repo, private, revision, replace, read_config(folder)["architecture"])
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files
            ]
            # Of an earlier push: a result that is not of these weights would be taken for theirs.
            present = {sibling.rfilename for sibling in api.model_info(repo, revision=head).siblings or []}
            operations += [CommitOperationDelete(path_in_repo=name) for name in sorted(present & set(OWN_FILES) - files.keys())]
            commit = api.create_commit(
                repo,
                operations,
                commit_message=message or f"Upload {run.resolve().name} with kat_zoo",
                revision=revision,
                create_pr=create_pr,
                parent_commit=head,
            )
    return Push(repo, files, commit.oid, commit.oid != head, commit.pr_url or f"{api.endpoint}/{repo}")


def _require_repo(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"repo={repo!r}: expected org/name ({one_line(error)[:200]})") from error
    if "/" not in repo:
        raise ValueError(f"repo={repo!r}: expected org/name")


def _token(token: str | None) -> str:
    token = token or get_token()
    if not token:
        raise PermissionError("no Hugging Face token: run `hf auth login`, set HF_TOKEN, or pass one")
    return token


def _prepare(api: HfApi, repo: str, private: bool, revision: str | None, replace: bool, architecture: str) -> str | None:
    """Make repository and branch if need be; return the commit to build on."""
    try:
        info = api.model_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private)
        info = api.model_info(repo)
    if private and not info.private:
        raise ValueError(f"{repo} exists and is public; choose another name, or push without --private")
    if revision and revision != "main":
        try:
            info = api.model_info(repo, revision=revision)
        except RevisionNotFoundError:
            api.create_branch(repo, branch=revision)
            info = api.model_info(repo, revision=revision)
    if not replace:
        _require_ours(api, repo, info, architecture)
    return info.sha


def _require_ours(api: HfApi, repo: str, info: ModelInfo, architecture: str) -> None:
    """Refuse a repository that holds another model, or files that a push overwrites without a config.json that tells of which model."""
    held = {sibling.rfilename for sibling in info.siblings or []} & set(OWN_FILES)
    if CONFIG not in held:
        if held:
            raise ValueError(f"{repo} exists and holds {', '.join(sorted(held))}, but no {CONFIG}; choose another name, or pass --replace")
        return
    config = json.loads(Path(api.hf_hub_download(repo, CONFIG, revision=info.sha)).read_text(encoding="utf-8"))
    present = config.get("architecture") if isinstance(config, dict) else None
    if present != architecture:
        raise ValueError(f"{repo} exists and holds {present}, not {architecture}; choose another name, or pass --replace")


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Say in one line what the Hub's refusals mean, and that it does not answer."""
    try:
        yield
    except LocalEntryNotFoundError as error:  # nothing in the cache either
        raise ConnectionError(
            f"the Hub does not answer ({repo}): {one_line(error.__cause__ or error)[:200]}; is there a network?"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise PermissionError(f"the Hugging Face token is not valid ({repo}): {one_line(error)}") from error
        if status == 403:
            raise PermissionError(f"the Hugging Face token has no right to write to {repo}") from error
        if status == 412:
            raise ValueError(f"{repo} has been changed meanwhile; push again") from error
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        raise ConnectionError(f"the Hub does not answer ({repo}): {one_line(error)[:200]}; is there a network?") from error


def _delete_others(target: Path, present: set[str]) -> None:
    """Delete the files of earlier downloads that are not of this one: a recipe or result would be taken for that of these weights."""
    for known in [*(target / DOWNLOADED).rglob("*.metadata")]:
        name = known.relative_to(target / DOWNLOADED).as_posix().removesuffix(".metadata")
        if name not in present:
            (target / name).unlink(missing_ok=True)
            known.unlink()


def pull(repo: str, folder: str | Path | None = None, *, revision: str | None = None, token: str | None = None) -> Path:
    """Download a model's repository.

    Args:
        repo: `org/name`.
        folder: folder to write to; the name by default. In that of an earlier pull, files that are current are not downloaded again, and
            those that the repository no longer has are deleted.
        revision: branch, tag, commit, or `refs/pr/N`.
        token: token for a private repository; by default that of HF_TOKEN or `hf auth login`.

    Returns:
        The folder; `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it.

    Raises:
        FileNotFoundError: no such repository or revision, or it holds no model.
        ConnectionError: the Hub does not answer.
        ValueError: not `org/name`, or damaged weights or config.json.
    """
    target = Path(folder) if folder is not None else Path(repo.split("/")[-1])
    if target.is_dir() and any(target.iterdir()) and not (target / DOWNLOADED).is_dir():
        raise ValueError(f"{target} is not empty, and not what an earlier pull left: expected a new folder")
    _require_repo(repo)
    with _explained(repo):
        try:
            info = HfApi(token=token, library_name="kat_zoo").model_info(repo, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            where = f"{repo} (revision {revision})" if revision else repo
            raise FileNotFoundError(f"the Hub has no {where}, or only for other tokens") from error
        present = {sibling.rfilename for sibling in info.siblings or []}
        for name in (CONFIG, WEIGHTS):
            if name not in present:
                raise FileNotFoundError(f"{repo} holds no timm model: it has no {name}")
        snapshot_download(repo, revision=info.sha, local_dir=target, token=token, library_name="kat_zoo")
    _delete_others(target, present)
    for name, damage in ((CONFIG, config_damage), (WEIGHTS, weights_damage)):
        if reason := damage(target / name):
            (target / name).unlink()
            raise ValueError(f"{repo}: {name} is damaged: it {reason}; it has been deleted")
    return target

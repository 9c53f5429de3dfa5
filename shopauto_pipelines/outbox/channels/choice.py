"""Which channel messages leave by: the local inbox, or in live mode those that the settings name for e-mail and for SMS."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module

from shopauto_pipelines.outbox.channels import Channel, Envelope, Outcome
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.channels.refusals import no_way
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings

#: Where the shipped channels are; others are named in the settings as they are here. Imported when chosen.
_SHIPPED = {
    "sendgrid": "shopauto_pipelines.outbox.channels.sendgrid:SendGrid",
    "smtp": "shopauto_pipelines.outbox.channels.smtp:Smtp",
    "twilio": "shopauto_pipelines.outbox.channels.twilio:Twilio",
    "webhook": "shopauto_pipelines.outbox.channels.webhook:Webhook",
}


class ChannelError(ShopAutoError):
    """A setting names a channel that cannot be loaded."""


def channel_for(settings: Settings) -> Channel:
    """The channel for all messages; raises :class:`ChannelError` where one of the settings' names leads nowhere."""
    if not settings.live:
        return LocalInbox(settings)
    email = _made(settings.email_via, settings)
    if settings.sms_via is None:
        return ByKind(email, None)
    return email if settings.sms_via == settings.email_via else ByKind(email, _made(settings.sms_via, settings))


class ByKind:
    """Hands e-mail to one channel and SMS to another, or to none: then they fail."""

    def __init__(self, email: Channel, sms: Channel | None) -> None:
        self._channels = {"email": email} | ({"sms": sms} if sms else {})
        self.name = "+".join(channel.name for channel in self._channels.values())
        self.batch_size = min(channel.batch_size for channel in self._channels.values())
        self.calls_at_once = min(channel.calls_at_once for channel in self._channels.values())

    def send(self, batch: Sequence[Envelope]) -> list[Outcome]:
        """Send; outcomes in the order of the batch."""
        outcomes = {
            e.message_id: Outcome("failed", no_way(e.channel)) for e in batch if e.channel not in self._channels
        }
        for kind, channel in self._channels.items():
            mine = [envelope for envelope in batch if envelope.channel == kind]
            answers = channel.send(mine) if mine else []
            outcomes |= {envelope.message_id: answer for envelope, answer in zip(mine, answers, strict=True)}
        return [outcomes[envelope.message_id] for envelope in batch]

    def recall(self, reference: str) -> Outcome:
        """Whether one of them has sent it; where one cannot say, the doubt stands."""
        answers = {answer.state: answer for answer in (one.recall(reference) for one in self._channels.values())}
        return next(answers[state] for state in ("sent", "unknown", "failed", "deferred") if state in answers)

    def close(self) -> None:
        """Close all."""
        with ExitStack() as stack:
            for channel in self._channels.values():
                stack.callback(channel.close)


def _made(name: str, settings: Settings) -> Channel:
    module, _, named = _SHIPPED.get(name, name).partition(":")
    try:
        made = getattr(import_module(module), named)
    except (ImportError, AttributeError) as error:
        raise ChannelError(f"there is no channel {name!r} (SHOPAUTO_EMAIL_VIA or SHOPAUTO_SMS_VIA): {error}") from error
    return made(settings)

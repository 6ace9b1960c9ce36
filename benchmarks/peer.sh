#!/bin/sh
# Start or stop one mailsrv for a side-by-side benchmark with other mail servers:
#
#     peer.sh start|stop DIR
#
# The caller's environment says where it answers, all on 127.0.0.1: SMTP, SUBM, LMTP, IMAP, IMAPS, POP3 are
# ports, NUSERS is the number of users user0.., VUID:VGID owns the mail store. Users idle0.., mix0..mix4, bench20k,
# bench5k and bench1k are there too, all in example.test with the password "pw". Mail is in DIR/mail/USER/Maildir,
# process ids in DIR/run/*.pid. Returns when the ports answer.
set -eu
COMMAND=${1:?start or stop}
DIR=$(mkdir -p "$2" && cd "$2" && pwd)
ROOT=$(cd "$(dirname "$0")/.." && pwd)
PIDFILE=$DIR/run/mailsrv.pid

if [ "$COMMAND" = stop ]; then
    [ -s "$PIDFILE" ] || exit 0
    pid=$(cat "$PIDFILE")
    kill "$pid" 2>/dev/null || true
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    rm -f "$PIDFILE"
    exit 0
fi

mkdir -p "$DIR/etc" "$DIR/run" "$DIR/log" "$DIR/mail" "$DIR/state"
if [ ! -s "$DIR/etc/key.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=mail.example.test \
        -keyout "$DIR/etc/key.pem" -out "$DIR/etc/cert.pem" 2>/dev/null
fi
{
    i=0
    while [ "$i" -lt "${NUSERS:-20}" ]; do
        echo "user$i@example.test:{PLAIN}pw::::::"
        i=$((i + 1))
    done
    i=0
    while [ "$i" -lt 2000 ]; do
        echo "idle$i@example.test:{PLAIN}pw::::::"
        i=$((i + 1))
    done
    for user in mix0 mix1 mix2 mix3 mix4 bench20k bench5k bench1k; do
        echo "$user@example.test:{PLAIN}pw::::::"
    done
} > "$DIR/etc/passwd"

listener() { # service port tls
    printf '[[listen]]\nservice = "%s"\nendpoint = "tcp:%s:interface=127.0.0.1"\ntls = "%s"\n\n' "$1" "$2" "$3"
}
{
    cat << TOML
hostname = "mail.example.test"
state_dir = "$DIR/state"
workers = ${WORKERS:-1}

[tls]
certificate = "$DIR/etc/cert.pem"
key = "$DIR/etc/key.pem"

[[domain]]
name = "example.test"

[[directory]]
type = "passwd-file"
path = "$DIR/etc/passwd"

[store]
type = "maildir"
path = "$DIR/mail/{local}/Maildir"

[auth]
plaintext_networks = ["127.0.0.0/8"]
default_domain = "example.test"

[limits]
exempt_networks = ["127.0.0.0/8"]

[submission]
messages_per_hour = 0
messages_per_day = 0
recipients_per_hour = 0
recipients_per_day = 0

[delivery]
check_from_field = false

TOML
    if [ -n "${SINK_PORT:-}" ]; then
        printf '[[route]]\nto = "*"\nvia = "smtp:%s:%s"\n\n' "${SINK_ADDR:-127.0.0.1}" "$SINK_PORT"
    fi
    listener mx "$SMTP" starttls
    listener submission "$SUBM" starttls
    listener lmtp "$LMTP" none
    listener imap "$IMAP" starttls
    listener imap "$IMAPS" implicit
    listener pop3 "$POP3" starttls
} > "$DIR/etc/mailsrv.toml"

# After a kill -9 the old pid file names nobody.
if [ -s "$PIDFILE" ] && ! kill -0 "$(cat "$PIDFILE")" 2>/dev/null; then rm -f "$PIDFILE"; fi
[ "$(id -u)" = 0 ] && chown -R "${VUID:-1500}:${VGID:-1500}" "$DIR/state" "$DIR/mail" "$DIR/log" "$DIR/run" "$DIR/etc"
ulimit -n "$(ulimit -H -n)"
cd "$ROOT"
if [ "$(id -u)" = 0 ]; then
    set -- --uid="${VUID:-1500}" --gid="${VGID:-1500}"
else
    set --
fi
"${MAILSRV_TWISTD:-$ROOT/.venv/bin/twistd}" "$@" --pidfile="$PIDFILE" --logfile="$DIR/log/mailsrv.log" \
    mailsrv --config "$DIR/etc/mailsrv.toml" > "$DIR/log/start.log" 2>&1

for port in "$SMTP" "$SUBM" "$LMTP" "$IMAP" "$IMAPS" "$POP3"; do
    tries=0
    until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1).close()" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 150 ]; then
            echo "port $port never opened; see $DIR/log" >&2
            exit 1
        fi
        sleep 0.1
    done
done

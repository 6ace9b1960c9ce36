"""Terminals of SMTP commands (RFC 5321 4.1.2, RFC 3461 4), each under its rule."""

from __future__ import annotations

import re

# 4.1.2: printable US-ASCII; RFC 6531 3.3 allows UTF-8 beside it. Nothing else has a place in a command
# (R-CTL-1): not NUL, not TAB, no other control, no C1 control, no line separator.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# ehlo-domain: Domain / address-literal. Real clients also send names with an underscore and the like;
# taken is what can stand in a Received field without quoting.
HELO_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.:-]{1,255}|\[[A-Za-z0-9.:-]{1,253}\]")

# Mail-parameters = esmtp-param *(SP esmtp-param)
# esmtp-param     = esmtp-keyword ["=" esmtp-value]
# esmtp-keyword   = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
# esmtp-value     = 1*(%d33-60 / %d62-126)      ; and UTF-8 (RFC 6531 3.3)
PARAMETER = re.compile("([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u00a0-\U0010ffff]+))?")

# RFC 1870 6.1:  size-value ::= 1*20DIGIT
SIZE_VALUE = re.compile("[0-9]{1,20}")

# RFC 3461 4:  xtext = *( xchar / hexchar );  hexchar = "+" two upper-case hexadecimal digits
XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")

# RFC 3461 4.2:  original-recipient-address = addr-type ";" xtext;  addr-type is an atom of RFC 822
ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")

# RFC 6533 3:  QCHAR = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e;  QUCHAR adds UTF8-2 / UTF8-3 / UTF8-4
# EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"
UNICODE_XTEXT = re.compile("(?:[!-*,-<>-\\[\\]-~\u00a0-\U0010ffff]|\\\\x\\{[1-9A-Fa-f][0-9A-Fa-f]{1,5}\\})+")
EMBEDDED_UNICODE = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")

# RFC 4865 4 (with its erratum):  future-release-interval = %x31-39 *8DIGIT
INTERVAL = re.compile("[1-9][0-9]{0,8}")
# future-release-date-time = date-time of RFC 3339 5.6
DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)

# RFC 2852 4:  by-value = by-time ";" by-mode [by-trace];  by-time = ["-" / "+"]1*9digit
DELIVER_BY = re.compile(r"([+-]?[0-9]{1,9});([NRnr])([Tt]?)")

# RFC 6710 3:  priority-value = "0" / (["-"] NZDIGIT)
PRIORITY = re.compile("0|-?[1-9]")

# RFC 4422 3.1:  sasl-mech = 1*20mech-char
MECHANISM = re.compile("[A-Za-z0-9_-]{1,20}")

# RFC 3030 2:  bdat-cmd = "BDAT" SP chunk-size [ SP "LAST" ]
CHUNK = re.compile(r"([0-9]{1,20})( LAST)?", re.IGNORECASE)

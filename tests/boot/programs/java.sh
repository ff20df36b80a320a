# SPDX-License-Identifier: MIT
# The compiler runs in the same machine first, and is itself a program that becomes machine code as it runs.
java -Xshare:auto -Xmx400m "$1/Work.java"
java -Xint -Xmx400m -cp . "$1/Work.java" brief
java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx400m "$1/Work.java" brief

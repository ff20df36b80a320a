# SPDX-License-Identifier: MIT
# The compiler, a Java program itself, which becomes machine code as it runs; and what it made: by all of the machine's compilers, by
# one of them, by none.
javac -d . "$1/Work.java"
java -Xmx400m Work
java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx400m Work brief
java -Xint -Xmx400m Work brief

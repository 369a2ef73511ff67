#!/bin/sh
# Spark 4 needs Java 17 or 21. Says how to get it; as root on Debian or Ubuntu, gets it.
java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
found() { "$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1; }
case "$(found)" in 17 | 21) exit 0 ;; esac
if [ -z "$JAVA_HOME" ] && ! command -v java >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Java 17 is missing; installing openjdk-17-jre-headless"
    apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless >/dev/null
    case "$(found)" in 17 | 21) exit 0 ;; esac
fi
echo "error: Java 17 or 21 is needed, found ${java} version '$(found)': install it (Debian/Ubuntu: apt-get install openjdk-17-jre-headless) or point JAVA_HOME at it" >&2
exit 2

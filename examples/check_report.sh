#!/usr/bin/env bash
# Check report.csv against orders.csv, without using anything of the agent's. Exit 0: right; 1: wrong.
set -euo pipefail
export LC_ALL=C

revenue() { # PATTERN-OF-STATUS
    awk -F, -v status="^($1)\$" '
        NR > 1 && $3 ~ status { sum[$2] += $4 * $5 }
        END { for (customer in sum) print customer "," sum[customer] }' orders.csv | sort
}

if [ ! -f report.csv ]; then
    echo 'fault: there is no report.csv'
    exit 1
fi
reported=$(tail -n +2 report.csv | sort)
if [ "$(head -n 1 report.csv)" = customer,revenue_cents ] && [ "$reported" = "$(revenue paid)" ]; then
    echo "report.csv is right: $(wc -l <report.csv) lines"
    exit 0
fi
if [ "$reported" = "$(revenue 'paid|refunded')" ]; then
    echo 'fault: refunded orders are counted as money earned'
fi
while IFS=, read -r customer expected; do
    found=$(awk -F, -v customer="$customer" '$1 == customer { print $2 }' report.csv)
    if [ "$found" != "$expected" ]; then
        echo "fault: $customer: expected $expected cents, report.csv says ${found:-nothing}"
    fi
done < <(revenue paid)
exit 1

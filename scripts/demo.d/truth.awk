# SPDX-License-Identifier: MIT
# The independent pass over the index: awk -v packages=FILE -v relations=FILE -f truth.awk INDEX writes a
# line for each package and each relation, and prints counts. Shares nothing with the Lua side.
function trim(s) {
    gsub(/^[ \t]+|[ \t]+$/, "", s)
    return s
}
function relation(kind, text,    clauses, n, i, items, m, j, item, name, rest) {
    n = split(text, clauses, ",")
    for (i = 1; i <= n; i++) {
        m = split(clauses[i], items, "|")
        for (j = 1; j <= m; j++) {
            item = trim(items[j])
            if (item == "") continue
            name = item
            sub(/[ \t(].*$/, "", name)
            rest = trim(substr(item, length(name) + 1))
            gsub(/^\(|\)$/, "", rest)
            print key "|" kind "|" i "|" name "|" rest > relations
            n_relations++
        }
    }
}
function stanza(    k) {
    if (!("Package" in f)) return
    if (!("Section" in f)) f["Section"] = "unknown"
    if (!("Maintainer" in f)) f["Maintainer"] = "unknown"
    key = f["Package"] "|" f["Version"] "|" f["Architecture"]
    print key "|" f["Section"] "|" f["Maintainer"] > packages
    n_packages++
    maintainers[f["Maintainer"]] = 1
    sections[f["Section"]] = 1
    size += f["Size"]
    for (k in kinds) if (kinds[k] in f) relation(kinds[k], f[kinds[k]])
    split("", f)
}
BEGIN { split("Depends Pre-Depends Recommends Suggests Enhances Breaks Conflicts Replaces Provides", kinds, " ") }
/^$/ { stanza(); next }
/^[A-Za-z0-9-]+:/ {
    colon = index($0, ":")
    f[substr($0, 1, colon - 1)] = trim(substr($0, colon + 1))
}
END {
    stanza()
    for (m in maintainers) n_maintainers++
    for (s in sections) n_sections++
    printf "packages=%d dependencies=%d maintainers=%d sections=%d size=%.0f\n", n_packages, n_relations,
        n_maintainers, n_sections, size
}

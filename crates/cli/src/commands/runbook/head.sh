set -euo pipefail
shopt -s inherit_errexit # from bash 4.4 on
set +o xtrace
umask 077
ulimit -c 0

environment='@environment@'
operator=${OPERATOR:-$(id -un)}
ticket=${TICKET:-}

# Not one of these is exported: a program gets a password on its stdin, or as a variable of its own.
unset old_password new_password encoded_password database_url value present text secret string stored vault tags
old_password='' new_password='' encoded_password='' database_url='' ids=''

stop() {
    printf '%s\n' '@error@'" $*" >&2
    exit 1
}

ask() { # VARIABLE PROMPT
    printf '%s ' "$2" >&2
    IFS= read -rs "$1" || stop '@no_password@'
    printf '\n' >&2
}

ask_passwords() {
    local LC_ALL=C
    ask old_password '@old@'
    ask new_password '@new@'
    ((${#new_password} >= 8)) || stop '@short@'
    [[ $new_password != *[^!-~]* ]] || stop '@odd@'
    [[ $new_password != "$old_password" ]] || stop '@same@'
    encoded_password=$(printf '%s' "$new_password" | jq -Rrs @uri)
    database_url='@database_url@'
    # From here on nothing reads what was meant as an answer.
    [[ -t 0 ]] || exec </dev/null
}

# The present value of a copy on stdin, and the same with the new password in its URL; where there is none, the
# configured URL. A URL that points elsewhere is not touched.
with_new_password() { # BEFORE AFTER
    local present url
    present=$(cat)
    if [[ -z $present ]]; then
        printf '%s' "$1$database_url$2"
        return
    fi
    [[ $present == "$1"*"$2" ]] || stop '@other_form@'
    url=${present#"$1"}
    url=${url%"$2"}
    [[ $url =~ ^([A-Za-z0-9+.-]+://)([^:/@?]+):(.*)@([^@/?]+)(/.*)$ ]] || stop '@no_url@'
    [[ ${BASH_REMATCH[2]} == '@user@' ]] || stop '@other_user@'
    [[ ${BASH_REMATCH[4],,} == '@host@' || ${BASH_REMATCH[4],,} == '@host@':* ]] || stop '@other_host@'
    printf '%s%s%s:%s@%s%s%s' "$1" "${BASH_REMATCH[@]:1:2}" "$encoded_password" "${BASH_REMATCH[@]:4:2}" "$2"
}

# Stdin without the passwords in it.
mask() {
    local line known
    while IFS= read -r line || [[ -n $line ]]; do
        for known in "$new_password" "$encoded_password" "$old_password"; do
            [[ -z $known ]] || line=${line//"$known"/***}
        done
        printf '%s\n' "$line"
    done
}

# The lines of a log with one of these texts in them.
troubles() { # TEXT...
    local line text found=0 seen=0
    while IFS= read -r line || [[ -n $line ]]; do
        seen=$((seen + 1))
        for text in "$@"; do
            if [[ ${line,,} == *"${text,,}"* ]]; then
                found=1
                printf '%s\n' "$line" | mask
                break
            fi
        done
    done
    if ((found)); then
        printf '%s\n' '@troubles@' >&2
    elif ((seen)); then
        printf '%s\n' '@no_troubles@'" $seen" >&2
    else
        printf '%s\n' '@no_log@' >&2
    fi
}

connection='@connection@'

# A fresh login: accepted, refused, or why neither can be told. The server never says "invalid password".
answer_to() { # PASSWORD
    local said
    if said=$(PGPASSWORD=$1 psql --no-psqlrc --no-password --dbname="$connection" --command='select 1' 2>&1); then
        echo accepted
    elif [[ $said == *'password authentication failed'* ]]; then
        echo refused
    else
        printf '%s\n' "$said" >&2
        echo unknown
    fi
}

expect() { # accepted|refused PASSWORD SECONDS
    local answer deadline=$((SECONDS + $3))
    until answer=$(answer_to "$2") && [[ $answer == "$1" ]]; do
        ((SECONDS < deadline)) || stop '@not_expected@'" $1, $answer"
        sleep 3
    done
}

# Who is logged in as this role, and since when.
sessions() { # PASSWORD
    PGPASSWORD=$1 psql --no-psqlrc --no-password --dbname="$connection" --command="
        select application_name, client_addr, backend_start from pg_stat_activity
        where usename = current_user and pid <> pg_backend_pid() order by backend_start"
}

# What a line of an env file sets a key to.
env_value() { # KEY DIALECT
    local line found=0 value=''
    while IFS= read -r line || [[ -n $line ]]; do
        line=${line%$'\r'}
        [[ $2 == verbatim ]] || line=${line#"${line%%[![:space:]]*}"}
        [[ $2 != shell ]] || line=${line#export }
        if [[ $line == "$1="* ]]; then
            found=$((found + 1))
            value=${line#*=}
        fi
    done
    ((found == 1)) || stop '@lines@'" $1: $found"
    case $2:$value in
    shell:\'*\' | systemd:\'*\' | shell:\"*\" | systemd:\"*\") value=${value:1:-1} ;;
    esac
    # What else a reader would take for more than a plain character is a person's business.
    case $2:$value in
    shell:*://*[\\\'\"\`\$[:space:]]* | systemd:*://*[\\\'\"[:space:]]*) stop '@quoting@'" $1" ;;
    esac
    printf '%s' "$value"
}

# An env file on stdin, and the same with another value, quoted as its reader wants it. Everything else stays.
with_env_value() { # KEY DIALECT VALUE
    local line bare value=$3 quote=\'
    case $2 in
    shell) value=$quote${value//$quote/$quote\\$quote$quote}$quote ;;
    systemd)
        value=${value//\\/\\\\}
        value=\"${value//\"/\\\"}\"
        ;;
    esac
    while IFS= read -r line || [[ -n $line ]]; do
        bare=$line
        [[ $2 == verbatim ]] || bare=${bare#"${bare%%[![:space:]]*}"}
        [[ $2 != shell ]] || bare=${bare#export }
        if [[ $bare == "$1="* ]]; then
            [[ $line != *$'\r' ]] || value+=$'\r'
            line=${line%"$bare"}$1=$value
        fi
        printf '%s\n' "$line"
    done
}

message() {
    printf '%s\n' '@message@'" ($environment): $operator${ticket:+, $ticket}"
}

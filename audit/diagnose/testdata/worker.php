<?php
// A worker with the process title and the wire behaviour of Workerman's
// (websocket, http, text, frame): php worker.php NAME SCHEME://ADDRESS:PORT
// [ADDRESS:PORT]. The second port is an internal one, which takes frames.
// It ends with its stdin.
[, $name, $url] = $argv;
$inner = isset($argv[3]) ? stream_socket_server('tcp://' . $argv[3]) : null;
[$scheme, $address] = explode('://', $url, 2);
$server = stream_socket_server('tcp://' . $address, $errno, $message);
if (!$server) {
    fwrite(STDERR, "stream_socket_server(): Unable to connect to tcp://$address ($message)\n");
    exit(1);
}
cli_set_process_title("WorkerMan: worker process  $name $url");
stream_set_blocking($server, false);
echo "ready\n";
$clients = [];
$buffers = [];
$schemes = [];
while (true) {
    $read = array_merge([STDIN, $server], $inner ? [$inner] : [], $clients);
    $write = $except = null;
    stream_select($read, $write, $except, 60);
    foreach ($read as $socket) {
        if ($socket === STDIN) {
            if (fgetc(STDIN) === false) {
                exit(0);
            }
        } elseif ($socket === $server || $socket === $inner) {
            if ($client = @stream_socket_accept($socket, 0)) {
                stream_set_blocking($client, false);
                $clients[(int)$client] = $client;
                $buffers[(int)$client] = '';
                $schemes[(int)$client] = $socket === $inner ? 'frame' : $scheme;
            }
        } else {
            $id = (int)$socket;
            $data = fread($socket, 65535);
            if ($data === '' || $data === false) {
                drop($id);
                continue;
            }
            $buffers[$id] .= $data;
            $answer = input($schemes[$id], $buffers[$id]);
            if ($answer === null) {
                continue;
            }
            if ($answer !== false) {
                fwrite($socket, $answer);
            }
            if ($answer === false || $scheme === 'http') {
                drop($id);
            }
        }
    }
}

function drop(int $id): void
{
    global $clients, $buffers;
    fclose($clients[$id]);
    unset($clients[$id], $buffers[$id]);
}

// input gives the answer to what has come: null for "wait", false for "close".
function input(string $scheme, string &$buffer): string|false|null
{
    switch ($scheme) {
        case 'text':
            if (($end = strpos($buffer, "\n")) === false) {
                return null;
            }
            $line = rtrim(substr($buffer, 0, $end), "\r");
            $buffer = substr($buffer, $end + 1);
            return "hello $line\n";
        case 'frame':
            if (strlen($buffer) < 4) {
                return null;
            }
            return unpack('N', $buffer)[1] > 10485760 ? false : null;
    }
    // websocket and http: until the blank line.
    if (strlen($buffer) < 6 || ($end = strpos($buffer, "\r\n\r\n")) === false) {
        return strlen($buffer) >= 6 && !preg_match('/^(GET|POST|HEAD|PUT|OPTIO|DELET)/', $buffer) ? "HTTP/1.1 400 Bad Request\r\n\r\n" : null;
    }
    $head = substr($buffer, 0, $end);
    $buffer = '';
    if ($scheme === 'http') {
        return "HTTP/1.1 200 OK\r\nServer: workerman\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    }
    if (!preg_match('/Sec-WebSocket-Key: *(.*?)\r\n/i', $head . "\r\n", $match)) {
        return "HTTP/1.1 200 WebSocket\r\nServer: workerman\r\n\r\n<div style=\"text-align:center\"><h1>WebSocket</h1><hr>workerman</div>";
    }
    $accept = base64_encode(sha1($match[1] . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true));
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: $accept\r\nServer: workerman\r\n\r\n";
}

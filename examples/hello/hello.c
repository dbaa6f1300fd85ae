/* hello: a web service small enough to read in one sitting.
 *
 *   GET /         says which commit it was built from
 *   GET /visits   counts visits: in redis where one is linked, else in memory
 *   GET /healthz  says ok
 *
 * One thread per connection, at most CLIENTS at a time; whoever comes then waits in the kernel's queue.
 *
 * It can be replaced without a failed request: systemd owns the listening socket (units/hello.socket), so
 * connections queue up there while no process accepts them, and on SIGTERM every connection that was
 * accepted gets its answer before the process ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef COMMIT /* the pipeline gives it: see wercker.yml */
#define COMMIT "an unknown commit"
#endif
#define GREETING "hello from " COMMIT "\n"

enum {
    CLIENTS = 64,      /* served at the same time */
    HEAD_MAX = 4096,   /* bytes of request line and headers */
    CLIENT_MS = 5000,  /* for a client to send its request and take its answer */
    GOODBYE_MS = 1000, /* for a client to close after its answer */
    REDIS_MS = 1000,   /* for redis to connect and answer */
};

/* --- Reading and writing by a deadline -------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* True once `fd` is ready; false when the deadline has passed. */
static bool ready(int fd, short events, int64_t deadline)
{
    int64_t left = deadline - now_ms();
    struct pollfd wait = { .fd = fd, .events = events };
    return left > 0 && poll(&wait, 1, (int)left) == 1;
}

/* Bytes received; 0 when the other side has ended, failed or taken too long. All sockets are non-blocking. */
static size_t receive(int fd, char *to, size_t room, int64_t deadline)
{
    ssize_t got = ready(fd, POLLIN, deadline) ? recv(fd, to, room, 0) : 0;
    return got > 0 ? (size_t)got : 0;
}

static bool send_all(int fd, const char *from, size_t length, int64_t deadline)
{
    while (length > 0) {
        ssize_t sent = ready(fd, POLLOUT, deadline) ? send(fd, from, length, MSG_NOSIGNAL) : -1;
        if (sent < 0)
            return false;
        from += sent;
        length -= (size_t)sent;
    }
    return true;
}

/* --- Requests ---------------------------------------------------------------------------------------- */

struct request {
    char method[8];
    char path[256]; /* without the query */
};

enum parsed { WHOLE, PARTIAL, MALFORMED };

/* Reads the head of an HTTP/1 request (RFC 9112) from `text`, which is `length` bytes and a NUL. */
static enum parsed parse_request(const char *text, size_t length, struct request *request)
{
    const char *end = memmem(text, length, "\r\n\r\n", 4);
    if (!end)
        return PARTIAL;
    end += 2; /* the last line keeps its line end */

    for (const char *c = text; c < end; c++) {
        bool line_end = (c[0] == '\r' && c[1] == '\n') || (c[0] == '\n' && c > text && c[-1] == '\r');
        if (iscntrl((unsigned char)*c) && *c != '\t' && !line_end)
            return MALFORMED;
    }

    size_t method = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (method == 0 || method >= sizeof request->method || text[method] != ' ')
        return MALFORMED;

    const char *target = text + method + 1;
    const char *version = target + strcspn(target, " \t\r");
    size_t path = strcspn(target, "? \t\r");
    if (target[0] != '/' || path >= sizeof request->path)
        return MALFORMED;
    if (strncmp(version, " HTTP/1.1\r\n", 11) != 0 && strncmp(version, " HTTP/1.0\r\n", 11) != 0)
        return MALFORMED;

    for (const char *line = version + 11; line < end; line = strstr(line, "\r\n") + 2) {
        size_t name = strcspn(line, ": \t\r");
        if (name == 0 || line[name] != ':')
            return MALFORMED;
    }

    *request = (struct request){ 0 };
    memcpy(request->method, text, method);
    memcpy(request->path, target, path);
    return WHOLE;
}

/* --- Visits ------------------------------------------------------------------------------------------- */

/* Counts one visit and returns how many there were, or -1 when redis is linked but does not answer.
 * A pipeline service named redis is announced in these two variables; so could any other redis be. */
static long count_visit(void)
{
    static atomic_long in_memory;
    const char *host = getenv("REDIS_PORT_6379_TCP_ADDR");
    const char *port = getenv("REDIS_PORT_6379_TCP_PORT");
    if (!host || !port)
        return atomic_fetch_add(&in_memory, 1) + 1;

    struct sockaddr_in redis = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
    if (inet_pton(AF_INET, host, &redis.sin_addr) != 1)
        return -1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;

    /* The connect goes on by itself; sending waits for it. An array of two strings, then an integer back. */
    static const char incr[] = "*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n";
    int64_t deadline = now_ms() + REDIS_MS;
    char reply[64] = "";
    size_t got = 0, more = 1;
    connect(fd, (struct sockaddr *)&redis, sizeof redis);
    if (send_all(fd, incr, sizeof incr - 1, deadline))
        while (!strstr(reply, "\r\n") && more > 0 && got < sizeof reply - 1)
            got += more = receive(fd, reply + got, sizeof reply - 1 - got, deadline);
    close(fd);
    return reply[0] == ':' && strstr(reply, "\r\n") ? atol(reply + 1) : -1;
}

/* --- Answers ------------------------------------------------------------------------------------------ */

struct answer {
    const char *status;
    char body[256];
};

static struct answer answer_to(const struct request *request)
{
    if (strcmp(request->method, "GET") != 0)
        return (struct answer){ "405 Method Not Allowed", "only GET is understood here\n" };
    if (strcmp(request->path, "/") == 0)
        return (struct answer){ "200 OK", GREETING };
    if (strcmp(request->path, "/healthz") == 0)
        return (struct answer){ "200 OK", "ok\n" };
    if (strcmp(request->path, "/visits") == 0) {
        struct answer answer = { "503 Service Unavailable", "redis does not answer\n" };
        long visits = count_visit();
        if (visits >= 0) {
            answer.status = "200 OK";
            snprintf(answer.body, sizeof answer.body, "%ld\n", visits);
        }
        return answer;
    }
    return (struct answer){ "404 Not Found", "there is /, /visits and /healthz\n" };
}

/* Reads one request, answers it, and closes. A client that says nothing is not answered. */
static void serve(int fd)
{
    int64_t deadline = now_ms() + CLIENT_MS;
    char head[HEAD_MAX + 1] = "", text[512];
    size_t length = 0, more = 1;
    struct request request;
    enum parsed parsed = PARTIAL;

    while (parsed == PARTIAL && more > 0 && length < HEAD_MAX) {
        length += more = receive(fd, head + length, HEAD_MAX - length, deadline);
        head[length] = '\0';
        parsed = parse_request(head, length, &request);
    }

    struct answer answer = { "400 Bad Request", "this is not an HTTP/1 request\n" };
    if (parsed == WHOLE)
        answer = answer_to(&request);
    else if (parsed == PARTIAL && length == HEAD_MAX)
        answer = (struct answer){ "431 Request Header Fields Too Large", "the request's head is too long\n" };

    if (length > 0) {
        int size = snprintf(text, sizeof text,
                            "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s"
                            "Connection: close\r\n\r\n%s",
                            answer.status, strlen(answer.body),
                            strncmp(answer.status, "405", 3) == 0 ? "Allow: GET\r\n" : "", answer.body);
        send_all(fd, text, (size_t)size, deadline);
        /* Closing on bytes not yet read would reset the connection and could take the answer with it. */
        shutdown(fd, SHUT_WR);
        deadline = now_ms() + GOODBYE_MS;
        while (receive(fd, head, HEAD_MAX, deadline) > 0)
            ;
    }
    close(fd);
}

/* --- The process --------------------------------------------------------------------------------------- */

static sem_t slots; /* one per connection that may still be accepted */

static void *client_thread(void *fd)
{
    serve((int)(intptr_t)fd);
    sem_post(&slots);
    return NULL;
}

static void take_slot(void)
{
    while (sem_wait(&slots) != 0)
        ; /* interrupted, as under a debugger */
}

/* The socket that systemd hands over as file descriptor 3, or one of our own on 127.0.0.1:$PORT. */
static int listening_socket(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *port = getenv("PORT");
    if (pid && count && atol(pid) == (long)getpid() && atoi(count) >= 1) {
        fcntl(3, F_SETFL, fcntl(3, F_GETFL) | O_NONBLOCK);
        return 3;
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int number = port ? atoi(port) : 18080, yes = 1;
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons((uint16_t)number) };
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (number < 1 || number > 65535) {
        fprintf(stderr, "hello: PORT=%s is not a port\n", port);
        exit(EXIT_FAILURE);
    }
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(fd, (struct sockaddr *)&here, sizeof here) != 0 || listen(fd, SOMAXCONN) != 0) {
        fprintf(stderr, "hello: cannot listen on 127.0.0.1:%d: %s\n", number, strerror(errno));
        exit(EXIT_FAILURE);
    }
    return fd;
}

/* Tells systemd that requests can come (Type=notify in units/hello.service); without systemd, nothing. */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    if (!path || strlen(path) >= sizeof to.sun_path)
        return;
    memcpy(to.sun_path, path, strlen(path));
    if (path[0] == '@') /* a name in the abstract namespace */
        to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, size);
    close(fd);
}

int main(void)
{
    /* SIGTERM is read like any other input, so it can interrupt nothing half done. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int stop = signalfd(-1, &signals, SFD_CLOEXEC);
    int listener = listening_socket();

    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    sem_init(&slots, 0, CLIENTS);

    fprintf(stderr, "hello: %s is ready\n", COMMIT);
    notify("READY=1");

    struct pollfd wait[] = { { .fd = stop, .events = POLLIN }, { .fd = listener, .events = POLLIN } };
    for (;;) {
        take_slot();
        wait[0].revents = 0;
        poll(wait, 2, -1);
        if (wait[0].revents)
            break; /* with one slot taken, so CLIENTS - 1 are left to come back */
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        pthread_t thread;
        if (fd < 0) {
            usleep(10000); /* the client has left, or the machine is short of something: do not spin */
            sem_post(&slots);
        } else if (pthread_create(&thread, &detached, client_thread, (void *)(intptr_t)fd) != 0) {
            client_thread((void *)(intptr_t)fd); /* no thread to be had: answer it here */
        }
    }

    notify("STOPPING=1");
    for (int i = 0; i < CLIENTS - 1; i++)
        take_slot();
    fprintf(stderr, "hello: %s has answered everyone and ends\n", COMMIT);
    return EXIT_SUCCESS;
}

/* Tests of what hello.c makes of requests, without a socket: `cc -pthread tests/requests.c -o t && ./t`. */
#define main hello_main /* the service's own main stays out of the way */
#include "../hello.c"
#undef main

static int failures;

static void check(bool held, const char *what)
{
    printf("%s  %s\n", held ? "ok    " : "FAILED", what);
    failures += !held;
}

static enum parsed parse(const char *text, struct request *request)
{
    return parse_request(text, strlen(text), request);
}

/* What a GET of `path` is answered with. */
static struct answer get(const char *path)
{
    struct request request = { .method = "GET" };
    snprintf(request.path, sizeof request.path, "%s", path);
    return answer_to(&request);
}

int main(void)
{
    struct request r;

    check(parse("GET / HTTP/1.1\r\nHost: x\r\n\r\n", &r) == WHOLE, "a request is read");
    check(strcmp(r.method, "GET") == 0 && strcmp(r.path, "/") == 0, "with its method and path");
    check(parse("GET /visits?from=here HTTP/1.0\r\n\r\n", &r) == WHOLE && strcmp(r.path, "/visits") == 0,
          "a query is no part of the path");
    check(parse("GET / HTTP/1.1\r\nHost: x\r\n", &r) == PARTIAL, "half a request is waited for");
    check(parse("", &r) == PARTIAL, "so is an empty one");
    check(parse("GET / HTTP/1.1\r\nHost: x\r\n\r\nbody", &r) == WHOLE, "a body is left alone");

    const char *malformed[] = {
        "get / HTTP/1.1\r\n\r\n",          "GET  / HTTP/1.1\r\n\r\n",           "GET / HTTP/2.0\r\n\r\n",
        "GET /\r\n\r\n",                   "GET nowhere HTTP/1.1\r\n\r\n",      "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",   "GET / HTTP/1.1\r\nHost\r\n\r\n",    "GET / HTTP/1.1\r\nA : x\r\n\r\n",
        "GET / HTTP/1.1\r\nA: x\n\r\n\r\n", "VERYLONGMETHOD / HTTP/1.1\r\n\r\n", " / HTTP/1.1\r\n\r\n",
        "\r\n\r\n",
    };
    int refused = 0, wrong = sizeof malformed / sizeof *malformed;
    for (int i = 0; i < wrong; i++)
        refused += parse(malformed[i], &r) == MALFORMED;
    check(refused == wrong, "what is no HTTP/1 request is refused");
    check(parse_request("GET /\0 HTTP/1.1\r\n\r\n", 19, &r) == MALFORMED, "a NUL in the path is refused");

    char long_path[512];
    snprintf(long_path, sizeof long_path, "GET /%0300d HTTP/1.1\r\n\r\n", 0);
    check(parse(long_path, &r) == MALFORMED, "a path longer than its buffer is refused");

    /* Change the greeting in hello.c and this fails: then the commit never reaches a machine. */
    check(strcmp(get("/").body, "hello from " COMMIT "\n") == 0, "/ says hello from its commit");
    check(strcmp(get("/healthz").body, "ok\n") == 0, "/healthz says ok");
    check(strncmp(get("/nowhere").status, "404", 3) == 0, "an unknown path is not found");
    struct request post = { .method = "POST", .path = "/" };
    check(strncmp(answer_to(&post).status, "405", 3) == 0, "only GET is allowed");

    printf("%d failed\n", failures);
    return failures > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* A module for the tests: it keeps a text beside keys, in classes of key metadata (Redis 8.6).
 *
 * Arguments of the module: pairs of a class name (four characters) and its flags (1: a server
 * without the class may ignore it, 0: it must not).
 *
 *   TEXT.SET class key text
 *   TEXT.GET class key
 *
 * Built by the tests without any header of a server: what it needs of the module API is declared
 * here by hand.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct Context Context;
typedef struct Text Text;
typedef struct Key Key;
typedef struct Io Io;
typedef struct Names Names;

enum { OK = 0, ERROR = 1, API_VERSION = 1, READ = 1, WRITE = 2, CLASSES = 7 };

/* Version 1 of the settings of a class. */
typedef struct Class {
    uint64_t version;
    uint64_t flags;
    uint64_t none;
    int (*copy)(Names *, uint64_t *);
    int (*rename)(Names *, uint64_t *);
    int (*move)(Names *, uint64_t *);
    void (*unlink)(Names *, uint64_t *);
    void (*release)(const char *, uint64_t);
    int (*load)(Io *, uint64_t *, int);
    void (*save)(Io *, void *, uint64_t *);
    void (*rewrite)(Io *, void *, uint64_t);
    void *others[8];
} Class;

typedef int Command(Context *, Text **, int);

static void (*set_attributes)(Context *, const char *, int, int);
static int (*create_command)(Context *, const char *, Command *, const char *, int, int, int);
static int (*create_class)(Context *, const char *, int, void *);
static int (*set_meta)(int, Key *, uint64_t);
static int (*get_meta)(int, Key *, uint64_t *);
static Key *(*open_key)(Context *, Text *, int);
static void (*close_key)(Key *);
static const char *(*text_of)(const Text *, size_t *);
static int (*reply_simple)(Context *, const char *);
static int (*reply_error)(Context *, const char *);
static int (*reply_bytes)(Context *, const char *, size_t);
static int (*reply_null)(Context *);
static void (*save_bytes)(Io *, const char *, size_t);
static void (*save_signed)(Io *, int64_t);
static void (*save_double)(Io *, double);
static void (*save_float)(Io *, float);
static char *(*load_bytes)(Io *, size_t *);
static int64_t (*load_signed)(Io *);
static double (*load_double)(Io *);
static float (*load_float)(Io *);
static void (*give_back)(void *);

static struct { char name[5]; int id; } classes[CLASSES];
static int count;

/* A length and so many bytes. */
typedef struct Kept { size_t len; char bytes[]; } Kept;

static uint64_t keep(const char *bytes, size_t len) {
    Kept *kept = malloc(sizeof(Kept) + len);
    kept->len = len;
    memcpy(kept->bytes, bytes, len);
    return (uint64_t)(uintptr_t)kept;
}

static void release(const char *key, uint64_t meta) {
    (void)key;
    free((void *)(uintptr_t)meta);
}

/* One item of each kind that a module's value is made of. */
static void save(Io *io, void *value, uint64_t *meta) {
    Kept *kept = (Kept *)(uintptr_t)*meta;
    (void)value;
    save_bytes(io, kept->bytes, kept->len);
    save_signed(io, -(int64_t)kept->len);
    save_double(io, 0.5);
    save_float(io, 1.5f);
}

static int load(Io *io, uint64_t *meta, int version) {
    size_t len;
    char *bytes = load_bytes(io, &len);
    (void)version;
    if (bytes == NULL)
        return -1;
    *meta = keep(bytes, len);
    give_back(bytes);
    if (load_signed(io) != -(int64_t)len || load_double(io) != 0.5 || load_float(io) != 1.5f) {
        release(NULL, *meta);
        return -1;
    }
    return 1;
}

static int class_of(Text *name) {
    for (int n = 0; n < count; n++)
        if (strcmp(classes[n].name, text_of(name, NULL)) == 0)
            return classes[n].id;
    return -1;
}

static int set(Context *context, Text **words, int len) {
    if (len != 4 || class_of(words[1]) < 0)
        return reply_error(context, "ERR TEXT.SET class key text");
    Key *key = open_key(context, words[2], READ | WRITE);
    size_t bytes;
    const char *text = text_of(words[3], &bytes);
    uint64_t before = 0;
    if (key != NULL && get_meta(class_of(words[1]), key, &before) == OK && before != 0)
        release(NULL, before);
    uint64_t meta = keep(text, bytes);
    if (key == NULL || set_meta(class_of(words[1]), key, meta) != OK) {
        release(NULL, meta);
        if (key != NULL)
            close_key(key);
        return reply_error(context, "ERR no such key");
    }
    close_key(key);
    return reply_simple(context, "OK");
}

static int get(Context *context, Text **words, int len) {
    if (len != 3 || class_of(words[1]) < 0)
        return reply_error(context, "ERR TEXT.GET class key");
    Key *key = open_key(context, words[2], READ);
    uint64_t meta = 0;
    int found = key != NULL && get_meta(class_of(words[1]), key, &meta) == OK && meta != 0;
    Kept *kept = (Kept *)(uintptr_t)meta;
    int done = found ? reply_bytes(context, kept->bytes, kept->len) : reply_null(context);
    if (key != NULL)
        close_key(key);
    return done;
}

int RedisModule_OnLoad(Context *context, Text **words, int len) {
    int (*api)(const char *, void *) = *(int (**)(const char *, void *))context;
    struct { const char *name; void *at; } needed[] = {
        {"RedisModule_SetModuleAttribs", &set_attributes},
        {"RedisModule_CreateCommand", &create_command},
        {"RedisModule_CreateKeyMetaClass", &create_class},
        {"RedisModule_SetKeyMeta", &set_meta},
        {"RedisModule_GetKeyMeta", &get_meta},
        {"RedisModule_OpenKey", &open_key},
        {"RedisModule_CloseKey", &close_key},
        {"RedisModule_StringPtrLen", &text_of},
        {"RedisModule_ReplyWithSimpleString", &reply_simple},
        {"RedisModule_ReplyWithError", &reply_error},
        {"RedisModule_ReplyWithStringBuffer", &reply_bytes},
        {"RedisModule_ReplyWithNull", &reply_null},
        {"RedisModule_SaveStringBuffer", &save_bytes},
        {"RedisModule_SaveSigned", &save_signed},
        {"RedisModule_SaveDouble", &save_double},
        {"RedisModule_SaveFloat", &save_float},
        {"RedisModule_LoadStringBuffer", &load_bytes},
        {"RedisModule_LoadSigned", &load_signed},
        {"RedisModule_LoadDouble", &load_double},
        {"RedisModule_LoadFloat", &load_float},
        {"RedisModule_Free", &give_back},
    };
    for (size_t n = 0; n < sizeof needed / sizeof *needed; n++)
        if (api(needed[n].name, needed[n].at) != OK)
            return ERROR;
    set_attributes(context, "text", 1, API_VERSION);
    for (int n = 0; n + 1 < len && count < CLASSES; n += 2, count++) {
        Class class = {.version = 1, .release = release, .load = load, .save = save};
        class.flags = (uint64_t)atoi(text_of(words[n + 1], NULL));
        strncpy(classes[count].name, text_of(words[n], NULL), 4);
        classes[count].id = create_class(context, classes[count].name, 1, &class);
        if (classes[count].id < 0)
            return ERROR;
    }
    if (create_command(context, "text.set", set, "write deny-oom", 2, 2, 1) != OK)
        return ERROR;
    return create_command(context, "text.get", get, "readonly", 2, 2, 1);
}

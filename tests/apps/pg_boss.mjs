// A day in the life of pg-boss, a job queue: run by a recording, DATABASE_URL says where.
import { createRequire } from "node:module";

const PgBoss = createRequire(process.env.APP_MODULES + "/")("pg-boss");
const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, application_name: "boss-v10" });
boss.on("error", (error) => { console.error(error); process.exitCode = 1; });

const check = (holds, what) => { if (!holds) throw new Error(what); };

await boss.start();
await boss.createQueue("dead");
await boss.createQueue("mail", { retryLimit: 1, deadLetter: "dead" });
await boss.updateQueue("mail", { retryLimit: 2 });
check((await boss.getQueues()).length >= 2, "queues");

const first = await boss.send("mail", { to: "ada@example.test" }, { priority: 2 });
await boss.send("mail", { to: "o'hara@example.test" }, { singletonKey: "once" });
await boss.sendAfter("mail", { to: "later" }, {}, 3600);
await boss.insert([{ name: "mail", data: { to: "bulk 1" } }, { name: "mail", data: { to: "bulk 2" } }]);

const [job] = await boss.fetch("mail");
check(job.id === first, "the one with priority comes first");
await boss.complete("mail", job.id, { sent: true });
const [next] = await boss.fetch("mail", { includeMetadata: true });
await boss.fail("mail", next.id, { reason: "bounced" });
await boss.cancel("mail", next.id);
await boss.resume("mail", next.id);
check((await boss.getJobById("mail", first)).state === "completed", "completed");
check((await boss.getQueueSize("mail")) > 0, "size");

await boss.schedule("mail", "0 3 * * *", { to: "nightly" }, { tz: "Europe/Vienna" });
check((await boss.getSchedules()).length === 1, "schedules");
await boss.unschedule("mail");
await boss.subscribe("arrived", "mail");
await boss.publish("arrived", { to: "subscriber" });
await boss.unsubscribe("arrived", "mail");

const worked = new Promise((resolve) => { boss.work("mail", { pollingIntervalSeconds: 0.5 }, resolve); });
check((await worked).length > 0, "worked");
await boss.offWork("mail");
await boss.maintain();
await boss.deleteJob("mail", first);
await boss.purgeQueue("dead");
await boss.deleteQueue("dead").catch(() => {});
await boss.stop({ graceful: true, timeout: 5000 });

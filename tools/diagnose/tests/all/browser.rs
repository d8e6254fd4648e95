//! The HTML report in a real browser: its script runs without a word of complaint, every claim is one click from its line, the
//! timeline zooms, and nothing is asked of any network.
//!
//! It needs Chromium (`apt-get install --no-install-recommends chromium-headless-shell`) and is left out where none is asked for:
//! `HOLDFAST_BROWSER=chromium-headless-shell cargo test -p holdfast-diagnose --test browser -- --ignored`

use std::process::Command;

use crate::common::told;
use holdfast_diagnose::report::{Lang, html};

/// Works the page as a reader does and leaves what it saw in an element.
const READER: &str = r##"<script>
"use strict";
const bad=[],say=t=>bad.push(t),$=q=>[...document.querySelectorAll(q)];
window.addEventListener("error",e=>say("error: "+e.message));
function opens(a,where){
 const id=(a.getAttribute("href")||"").slice(1),f=document.getElementById(id);
 if(!f){say(where+": "+id+" leads nowhere");return}
 f.open=false;a.click();
 if(!f.open||!f.classList.contains("hit"))say(where+": a click on "+id+" opens nothing");
 if(!f.querySelector("pre")?.textContent.includes(":"))say(where+": "+id+" shows no line");
}
const seen={};
function section(name){const h=$("h2").find(h=>h.textContent===name);return h?h.nextElementSibling:null}
try{
 for(const a of $("main a")){opens(a,"link");}
 seen.links=$("main a").length;
 for(const name of ["To do","Evidence that would decide more"]){
  const list=section(name);seen[name]=list?list.querySelectorAll("a").length:-1;
 }
 seen.points=[...$(".card li")].filter(l=>l.textContent.includes("portal")&&l.querySelector("a")).length;
 seen.supports=document.body.textContent.includes("supported by ");
 const marks=()=>$("#lanes rect").length,labels=()=>$("#lanes text").map(t=>t.textContent).join("|");
 const before=labels();$("button").find(b=>b.textContent==="+").click();
 seen.zoomed=labels()!==before;
 const wheeled=labels(),box=$("#lanes")[0].getBoundingClientRect();
 $("#lanes")[0].dispatchEvent(new WheelEvent("wheel",{deltaY:-100,clientX:box.left+300,bubbles:true,cancelable:true}));
 seen.wheeled=labels()!==wheeled;
 $("button").find(b=>b.textContent==="all").click();seen.marks=marks();
 const mark=$("#lanes rect")[0],of=mark.getAttribute("data-fact");document.getElementById(of).open=false;
 mark.dispatchEvent(new MouseEvent("click",{bubbles:true}));seen.mark=document.getElementById(of).open;
 const node=$("#graph rect")[0];$("details.card").forEach(d=>d.classList.remove("hit"));
 node.dispatchEvent(new MouseEvent("click",{bubbles:true}));seen.node=$("details.hit").length===1;
 const box2=$("input")[0];box2.value="xorddos";box2.oninput();
 seen.filtered=$("details.card").some(d=>d.hidden)&&$("details.card").some(d=>!d.hidden);
 seen.asked=performance.getEntriesByType("resource").length;
}catch(e){say("thrown: "+e.message)}
const out=document.createElement("pre");out.id="verdict";out.textContent=JSON.stringify({bad:bad.slice(0,5),seen});
document.body.replaceChildren(out);
</script></body>"##;

#[test]
#[ignore = "needs a browser: HOLDFAST_BROWSER names it"]
fn every_claim_on_the_page_is_one_click_from_its_line() {
    let browser = std::env::var("HOLDFAST_BROWSER").expect("HOLDFAST_BROWSER names a Chromium");
    let dir = tempfile::tempdir().expect("a folder");
    let report = told("incident", 1);
    let page = html::render(&report, Lang::En).expect("a page");
    let file = dir.path().join("report.html");
    std::fs::write(&file, page.replace("</body>", READER)).expect("written");
    let output = Command::new(&browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("the browser runs");
    let dom = String::from_utf8_lossy(&output.stdout);
    let verdict = dom.split("<pre id=\"verdict\">").nth(1).and_then(|t| t.split("</pre>").next());
    let verdict =
        verdict.unwrap_or_else(|| panic!("no verdict: {}", String::from_utf8_lossy(&output.stderr)));
    let verdict: serde_json::Value = serde_json::from_str(verdict).expect("json");
    assert_eq!(verdict["bad"], serde_json::json!([]), "{verdict}");
    let seen = &verdict["seen"];
    for flag in ["supports", "zoomed", "wheeled", "mark", "node", "filtered"] {
        assert_eq!(seen[flag], true, "{flag}: {verdict}");
    }
    for (count, least) in [("links", 50), ("marks", 10), ("To do", 2), ("points", 1)] {
        assert!(seen[count].as_i64().is_some_and(|n| n >= least), "{count}: {verdict}");
    }
    assert_eq!(seen["asked"], 0, "the page asked a network: {verdict}");
}

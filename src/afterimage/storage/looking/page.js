
'use strict';
// A source shows the records of a state. One has them in the page, the other asks the server.
const one=query=>document.querySelector(query),all=query=>[...document.querySelectorAll(query)],
box=one('input'),out=one('output'),main=one('main'),served='served' in document.body.dataset;
const menus=()=>all('nav select'),articles=()=>all('article').filter(each=>!each.hidden);
let state={};

const inPage={
 start(){this.items=all('article');
  this.texts=this.items.map(each=>each.textContent.toLowerCase());
  this.values=this.items.map(each=>JSON.parse(each.dataset.values))},
 show(){const words=(state.q||'').toLowerCase();let count=0;
  const chosen=menus().filter(menu=>menu.value!=='');
  this.items.forEach((each,i)=>{const is=this.texts[i].includes(words)&&
   chosen.every(menu=>(this.values[i][menu.name]||[]).includes(menu.value));
   each.hidden=!is;count+=is});
  out.textContent=count+' of '+this.items.length}};

const SIZE=20,FIXED=['q','kind','sort','at','hash'];
async function ask(what,more){
 const query=new URLSearchParams({...more});
 for(const name of ['q','kind','sort','hash'])if(state[name])query.set(name,state[name]);
 for(const name in state)if(!FIXED.includes(name))query.append('facet',JSON.stringify(
  [name,JSON.parse(state[name])]));
 const answer=await fetch('/api/'+what+'?'+query),found=await answer.json();
 if(!answer.ok)throw new Error(found.error);return found}
function fail(error){const place=one('#fault');place.hidden=!error;
 place.textContent=error?error.message:''}
function button(text,action){const made=document.createElement('button');made.type='button';
 made.textContent=text;made.addEventListener('click',action);return made}
function option(menu,value,text){const made=document.createElement('option');made.value=value;
 made.textContent=text;menu.append(made)}

const fromServer={
 run:0,fields:[],counted:null,menusOf:null,
 async show(){const run=++this.run,at=Number(state.at)||0;main.setAttribute('aria-busy','true');
  try{const found=await ask('records',{offset:at,limit:SIZE});
   if(run!==this.run)return;
   // The server has escaped every text, and the policy of the page allows no other script.
   main.innerHTML=found.records.map(each=>each.html).join('')||'<p>no records</p>';
   articles().forEach((each,i)=>this.tools(each,found.records[i].json,at+i));
   one('#back').disabled=!at;one('#on').disabled=found.records.length<SIZE;
   this.last=found.records.length;fail();scrollTo(0,0);
   const about=JSON.stringify({...state,at:0});
   const total=()=>{const n=this.counted.count;one('#on').disabled=at+this.last>=n;
    out.textContent=this.last?`${at+1} to ${at+this.last} of ${n.toLocaleString('en')}`:`0 of ${n}`};
   if(this.counted?.about===about&&at)total();
   else{out.textContent='';const count=await ask('count',{});
    if(run!==this.run)return;this.counted={about,count:count.count};total()}
   await this.menus(run);await this.calls(run)
  }catch(error){if(run===this.run){fail(error);main.textContent='';out.textContent=''}}
  finally{if(run===this.run)main.removeAttribute('aria-busy')}},
 async menus(run){const about=(state.kind||'')+' '+(state.q||'');
  if(this.menusOf===about||state.hash)return;
  const found=await ask('facets',{});
  if(run!==this.run)return;this.menusOf=about;this.fields=found.fields;
  const place=one('#facets');place.textContent='';
  for(const {field,values} of found.menus){const menu=document.createElement('select');
   menu.name=field;menu.setAttribute('aria-label',field);option(menu,'',field);
   for(const [value,count] of values)option(menu,JSON.stringify(value),
    `${typeof value==='string'?value:JSON.stringify(value)} (${count.toLocaleString('en')})`);
   place.append(menu)}
  const sort=one('[name=sort]');while(sort.options.length>1)sort.remove(1);
  for(const each of found.sorts){option(sort,each,each+' ascending');
   option(sort,'-'+each,each+' descending')}
  fill()},
 async calls(run=this.run){if(!one('#calls').open)return;
  const found=await ask('calls',{offset:Number(state.at)||0,limit:SIZE});
  if(run!==this.run)return;
  one('#python').textContent=found.python;one('#sql').textContent=found.sql},
 tools(article,json,at){const place=document.createElement('span');place.className='tools';
  place.append(button('Copy JSON',event=>copy(json,event.target)),
   button('Link',async()=>{try{const found=await ask('hash',{offset:at});
    if(found.json!==json)throw new Error('The store has changed. Reload the page.');
    change({hash:found.hash,kind:state.kind})}catch(error){fail(error)}}));
  article.prepend(place)},
 complete(){const text=box.value,start=text.search(/\S*$/),word=text.slice(start),list=one('#fields');
  list.textContent='';
  if(word)for(const each of this.fields.filter(name=>name.startsWith(word)&&name!==word).slice(0,20))
   option(list,text.slice(0,start)+each,each)}};
async function copy(text,button){try{await navigator.clipboard.writeText(text);
  button.textContent='Copied'}catch{fail(new Error('The browser does not allow to copy.'))}}

const source=served?fromServer:inPage;
function fill(){box.value=state.q||'';menus().forEach(menu=>{const value=state[menu.name]||'';
 if(value&&served&&![...menu.options].some(each=>each.value===value))option(menu,value,value);
 menu.value=value;if(menu.selectedIndex<0)menu.selectedIndex=0})}
function change(next){state=Object.fromEntries(Object.entries(next).filter(each=>each[1]));
 const hash='#'+new URLSearchParams(state);
 if(served&&('hash' in state||state.at!==change.at))history.pushState(null,'',hash);
 else history.replaceState(null,'',hash);
 change.at=state.at;fill();return source.show()}
function restore(){state=Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
 for(const name in state)if(served&&!FIXED.includes(name))try{JSON.parse(state[name])}
  catch{delete state[name]}
 change.at=state.at;fill();return source.show()}
function typed(){const next={...state,q:box.value};delete next.at;delete next.hash;change(next)}
let wait;
box.addEventListener('input',()=>{if(!served)return typed();
 fromServer.complete();clearTimeout(wait);wait=setTimeout(typed,300)});
box.addEventListener('keydown',event=>{if(event.key==='Enter'){clearTimeout(wait);typed()}});
one('nav').addEventListener('change',event=>{const menu=event.target;
 if(menu.tagName!=='SELECT')return;
 const next=menu.name==='kind'?{q:state.q}:{...state};delete next.at;delete next.hash;
 next[menu.name]=menu.value;change(next)});
addEventListener('hashchange',restore);addEventListener('popstate',restore);
async function turn(step){const at=Math.max(0,(Number(state.at)||0)+step*SIZE);
 if(one(step>0?'#on':'#back').disabled)return;
 await change({...state,at:at?String(at):''});
 const seen=articles();seen.at(step>0?0:-1)?.focus()}
addEventListener('keydown',event=>{
 if(event.target.matches('input,select,textarea')||event.ctrlKey||event.metaKey||event.altKey)return;
 const step={j:1,k:-1}[event.key];
 if(event.key==='/'){box.focus();event.preventDefault()}
 if(served&&event.key==='n')turn(1);
 if(served&&event.key==='p')turn(-1);
 if(!step)return;const seen=articles(),at=seen.indexOf(document.activeElement);
 if(served&&at>=0&&!seen[at+step])return void turn(step);
 const next=seen[Math.max(0,Math.min(seen.length-1,at<0&&step<0?0:at+step))];
 if(next){next.focus();next.scrollIntoView({block:'start'})}});
one('#mode').addEventListener('click',()=>{const dark=
 document.body.classList.contains('dark')||(!document.body.classList.contains('light')&&
 matchMedia('(prefers-color-scheme: dark)').matches);
 document.body.className=dark?'light':'dark'});
if(served){one('#calls').addEventListener('toggle',()=>fromServer.calls().catch(fail));
 const list=document.createElement('datalist');list.id='fields';one('nav').append(list);
 box.setAttribute('list','fields');
 one('#on').addEventListener('click',()=>turn(1));
 one('#back').addEventListener('click',()=>turn(-1))}
else inPage.start();
restore();
